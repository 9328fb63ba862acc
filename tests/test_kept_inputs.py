"""What a command reads, and what somebody else wrote, it does not write over: refused, and every file as it was."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic_fpn_ext import combine, evaluation, report
from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.data.export import export
from panoptic_fpn_ext.panoptic_png import write_panoptic_png
from panoptic_fpn_ext.whole_files import keep_inputs

H, W = 24, 32


def _main(module: str):
    return importlib.import_module(f"panoptic_fpn_ext.{module}.__main__").main


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """``gt.json``, ``gt/``, ``pred.json``, ``pred/``, ``images/``, ``instances.json`` and ``semantics.json``."""
    folder = tmp_path / "dataset"
    ids = np.ones((H, W), np.int32)
    ids[4:12, 4:12] = 2
    segments = [{"id": 1, "category_id": 7, "iscrowd": 0}, {"id": 2, "category_id": 1, "iscrowd": 0}]
    categories = [{"id": 1, "name": "car", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": categories,
    }
    for name in ("gt", "pred", "images"):
        (folder / name).mkdir(parents=True)
    for name in ("gt", "pred"):
        (folder / f"{name}.json").write_text(json.dumps(content))
        write_panoptic_png(str(folder / name / "a.png"), ids)
    Image.new("RGB", (W, H)).save(folder / "images/a.png")
    for name in ("instances", "semantics"):
        (folder / f"{name}.json").write_text("[]")
    return folder


def _words(folder: Path, words: Sequence[str]) -> list[str]:
    return [word if word.startswith("-") else str(folder / word) for word in words]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("report", ["gt.json", "pred.json", "--output", "pred.html"]),
        ("report", ["gt.json", "pred.json", "--output", "gt.html"]),
        ("report", ["gt.json", "pred.json", "--output", "gt.json"]),
        ("evaluation", ["gt.json", "pred.json", "--json", "pred.json"]),
        ("evaluation", ["gt.json", "pred.json", "--json", "../dataset/gt.json"]),
        ("combine", ["instances.json", "semantics.json", "gt.json", "gt.json"]),
        ("combine", ["instances.json", "semantics.json", "gt.json", "instances.json"]),
        ("combine", ["instances.json", "semantics.json", "gt.json", "new.json", "--folder", "gt"]),
        ("combine", ["instances.json", "gt", "gt.json", "new.json", "--folder", "gt"]),
        ("data.check", ["gt.json", "gt", "images", "--html", "gt.json"]),
        ("data.check", ["gt.json", "gt", "images", "--result", "gt.json"]),
    ],
)
def test_an_output_that_is_an_input_is_refused(dataset: Path, module: str, words: list[str]):
    before = _hashes(dataset)
    with pytest.raises(ValueError, match=r"is one of the inputs: name another output|is to be a page"):
        _main(module)(_words(dataset, words))
    assert _hashes(dataset) == before


def test_other_names_beside_the_inputs_are_written(dataset: Path):
    before = _hashes(dataset)
    evaluation_words = ["gt.json", "pred.json", "--json", "quality.json"]
    _main("evaluation")(_words(dataset, evaluation_words))
    assert json.loads((dataset / "quality.json").read_text())
    report.write_report(str(dataset / "report.html"), str(dataset / "gt.json"), [str(dataset / "pred.json")])
    combine.combine_files(*_words(dataset, ["instances.json", "semantics.json", "gt.json", "new.json"]), processes=1)
    after = _hashes(dataset)
    assert {path: after[path] for path in before} == before
    assert {"report.html", "report.json", "report_tables", "new.json"} <= {path.name for path in dataset.iterdir()}
    assert evaluation.pq_compute(str(dataset / "gt.json"), str(dataset / "pred.json"))["All"]["pq"] == 1


def test_a_page_of_further_files_does_not_replace_them(dataset: Path):
    files = _words(dataset, ["report.html", "gt.json", "pred.json", "report.json"])
    with pytest.raises(ValueError, match=r"report\.json would be written over"):
        report.write_report(files[0], files[1], files[2:3], more_files=files[3:])


def test_links_and_relative_paths_are_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("a.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^link\.json would be written over"):
        keep_inputs(["link.json"], [None, str(tmp_path / "a.json")])
    keep_inputs(["b.json"], [None, "a.json"])


def _source(folder: Path) -> Path:
    """Instances of COCO's kind with an image of its own."""
    folder.mkdir()
    Image.new("RGB", (W, H)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (folder / "source.json").write_text(json.dumps(content))
    return folder / "source.json"


def _convert(words: str) -> list[str]:
    lines: list[str] = []
    convert_description(parse_description(words), lines.append)
    return lines


@pytest.mark.parametrize("name", ["panoptic.json", "panoptic/0.png", "images/a.png"])
def test_a_conversion_leaves_what_it_did_not_write(tmp_path: Path, name: str):
    words = f"coco {_source(tmp_path / 'source')} --things car --output {tmp_path}/mine"
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    (tmp_path / "mine" / name).write_text("somebody's own")
    before = _hashes(tmp_path)
    with pytest.raises(ValueError, match=r"mine has 1 files and folders .* such as (panoptic|images/a\.png)"):
        _convert(words)
    after = _hashes(tmp_path)
    assert {path: after[path] for path in before} == before


def test_files_of_other_names_do_not_stop_a_conversion(tmp_path: Path):
    words = f"coco {_source(tmp_path / 'source')} --things car --output {tmp_path}/mine"
    for name in ("panoptic_fpn_ext/other/panoptic.json", "panoptic_train.json", "images/b.png"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("somebody's own")
    before = _hashes(tmp_path)
    _convert(words)
    after = _hashes(tmp_path)
    assert {path: after[path] for path in before} == before and (tmp_path / "mine/panoptic.json").is_file()


def test_a_conversion_beside_its_own_images(tmp_path: Path):
    """Which stay what they are; and it may be repeated, also where it was interrupted or lost a file."""
    source = _source(tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "mine/images", ignore=shutil.ignore_patterns("*.json"))
    image = hashlib.sha256((tmp_path / "mine/images/a.png").read_bytes()).hexdigest()
    words = f"coco {source} --images {tmp_path}/mine/images --things car --output {tmp_path}/mine"
    assert "up to date" not in _convert(words)[-1]
    assert "up to date" in _convert(words)[-1]
    (tmp_path / "mine/panoptic.json").unlink()
    assert "up to date" not in _convert(words)[-1]
    record = tmp_path / "mine/conversion.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "parts": None}))
    assert "up to date" not in _convert(words)[-1]
    assert not (tmp_path / "mine/images/a.png").is_symlink()
    assert hashlib.sha256((tmp_path / "mine/images/a.png").read_bytes()).hexdigest() == image


def test_a_conversion_that_was_interrupted_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = f"coco {_source(tmp_path / 'source')} --things car --output {tmp_path}/mine"

    def interrupted(*_: object) -> None:
        (tmp_path / "mine/panoptic").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("panoptic_fpn_ext.data.convert.convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _convert(words)
    assert "up to date" not in _convert(words)[-1]
    assert (tmp_path / "mine/panoptic.json").is_file()


@pytest.mark.parametrize("text", ["{", "[]", '{"parts": {}}'])
def test_a_damaged_record_of_a_conversion_is_named(tmp_path: Path, text: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/conversion.json").write_text(text)
    with pytest.raises(ValueError, match=r"conversion\.json is damaged, or no record of a conversion"):
        _convert(f"coco {_source(tmp_path / 'source')} --things car --output {tmp_path}/mine")


def test_an_export_into_the_folder_of_its_dataset_is_refused(dataset: Path):
    before = _hashes(dataset)
    for output in (dataset, dataset / "gt", dataset / "gt" / ".."):
        with pytest.raises(ValueError, match="is the dataset's own folder"):
            export("coco", str(dataset / "gt.json"), str(dataset / "gt"), str(output), processes=1)
    assert _hashes(dataset) == before
