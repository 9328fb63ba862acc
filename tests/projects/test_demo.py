"""demo.py on the command line's terms: what it writes, and what it says of bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from bad_input_data import CONFIG, OPTS, TinyDataset, global_state_restored, project_script, train_net, truncate
from detectron2.data import DatasetCatalog, MetadataCatalog
from image_kinds import REFUSED, SOUND
from PIL import Image

from panoptic_fpn_ext.engine.setup import load_prediction_config
from panoptic_fpn_ext.visualization import VideoReader, VideoWriter, draw_panoptic

demo = project_script("panoptic_fpn/demo.py")

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    with global_state_restored():
        train_net(TinyDataset(root / "data"), "tiny_demo", root / "output", "DATASETS.TEST", "()")
    return root / "output" / "model_final.pth"


@pytest.fixture
def dataset(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path / "data")


def _run(dataset: TinyDataset, weights: Path, output: Path, *extra: str, opts: tuple[str, ...] = ()) -> int:
    # Of the dataset only the JSON is needed.
    registration = ["tiny_demo", "no/images", "no/maps", str(dataset.json)]
    command = ["--config-file", str(CONFIG), "--output", str(output), "--register", *registration, *extra]
    command += ["--opts", *OPTS, "DATASETS.TEST", "('tiny_demo',)", "MODEL.WEIGHTS", str(weights), *opts]
    return demo.main(command)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_overlays_and_results_of_a_folder_with_subfolders(dataset: TinyDataset, weights: Path, tmp_path: Path):
    (dataset.images / "sub").mkdir()
    (dataset.images / "sub" / "image_1.jpg").write_bytes(dataset.image(2).read_bytes())
    output = tmp_path / "output"
    assert _run(dataset, weights, output, "--input", str(dataset.images), "--save-results") == 0
    overlays = {"image_1.png", "image_2.png", "image_1_2.png"}
    assert _names(output) == overlays | {"predictions.json"} | {f"predictions/{name}" for name in overlays}
    content = json.loads((output / "predictions.json").read_text())
    by_id = {image["id"]: image["file_name"] for image in content["images"]}
    names = {by_id[a["image_id"]]: a["file_name"] for a in content["annotations"]}
    assert names[str(dataset.images / "sub" / "image_1.jpg")] == "image_1_2.png"
    assert Image.open(output / "predictions" / "image_1.png").size == (64, 48)


def test_quoted_pattern_and_files_without_results(dataset: TinyDataset, weights: Path, tmp_path: Path):
    inputs = [str(dataset.images / "*_[12].jpg"), str(dataset.image(1))]
    assert _run(dataset, weights, tmp_path / "output", "--input", *inputs) == 0
    assert _names(tmp_path / "output") == {"image_1.png", "image_2.png"}


def test_a_page_of_predictions_without_ground_truth(
    dataset: TinyDataset, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "output"
    assert _run(dataset, weights, output, "--input", str(dataset.images), "--html") == 0
    assert f"Page: {output / 'report.html'}" in capsys.readouterr().out
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count('id="image-') == 2
    assert '"photo": "' in page
    assert '"truth": null' in page
    assert (output / "predictions.json").is_file()


def test_a_video_frame_by_frame(
    dataset: TinyDataset, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video, output = tmp_path / "street.avi", tmp_path / "output"
    frame = np.asarray(Image.open(dataset.image(1)).convert("RGB"))
    with VideoWriter(str(video), 5.0) as writer:
        for shift in (0, 4, 8):
            writer.write(np.roll(frame, shift, axis=1))
    assert _run(dataset, weights, output, "--video-input", str(video)) == 0
    assert f"Video: {output / 'street.mp4'}" in capsys.readouterr().out
    reader = VideoReader(str(output / "street.mp4"))
    assert (len(list(reader)), reader.rate) == (3, 5.0)
    (tmp_path / "text.mp4").write_text("no video")
    for wrong, words in (("nowhere.mp4", "There is no video"), (str(tmp_path / "text.mp4"), "cannot be read")):
        with pytest.raises((FileNotFoundError, ValueError), match=words):
            _run(dataset, weights, output, "--video-input", wrong)


def test_broken_images_are_named_and_the_others_predicted(
    dataset: TinyDataset, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    truncate(dataset.image(1))
    text = dataset.images / "image_3.jpg"
    text.write_text("text")
    output = tmp_path / "output"
    assert _run(dataset, weights, output, "--input", str(dataset.images), "--save-results") == 1
    assert _names(output) == {"image_2.png", "predictions.json", "predictions/image_2.png"}
    said = capsys.readouterr().err
    assert f"Image {dataset.image(1)} cannot be read" in said
    assert f"Image {text} is empty or no image" in said
    assert "2 of 3 images could not be read" in said


def test_a_folder_with_every_kind_of_image(
    dataset: TinyDataset, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, output = tmp_path / "kinds", tmp_path / "output"
    folder.mkdir()
    sound, refused = ([kind.write(folder) for kind in kinds] for kinds in (SOUND, REFUSED))
    assert _run(dataset, weights, output, "--input", str(folder), "--save-results") == 1
    content = json.loads((output / "predictions.json").read_text())
    assert {image["file_name"] for image in content["images"]} == {str(path) for path in sound}
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in content["images"]}
    assert all(sizes[str(folder / kind.name)] == kind.expected.shape[:2] for kind in SOUND)
    assert len(list(output.glob("*.png"))) == len(sound)
    assert not list(output.glob("*.tmp"))
    said = capsys.readouterr().err
    assert all(f"Image {path} " in said for path in refused)
    assert f"{len(refused)} of {len(sound) + len(refused)} images could not be read" in said


def test_whatever_goes_wrong_with_one_image_spares_the_others(
    dataset: TinyDataset,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    draws = iter([RuntimeError("[enforce fail] not enough memory\nmore")])

    def draw(*arguments: object, **options: object) -> np.ndarray:
        for error in draws:
            raise error
        return draw_panoptic(*arguments, **options)

    monkeypatch.setattr(demo, "draw_panoptic", draw)
    assert _run(dataset, weights, tmp_path / "output", "--input", str(dataset.images)) == 1
    assert _names(tmp_path / "output") == {"image_2.png"}
    said = capsys.readouterr().err
    assert f"Image {dataset.image(1)}: [enforce fail] not enough memory\n" in said
    assert "1 of 2 images" in said


def test_inputs_are_never_overwritten(dataset: TinyDataset, weights: Path, tmp_path: Path):
    dataset.image(1).unlink()
    dataset.image(2).unlink()
    png = dataset.images / "a.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(png)
    before = png.read_bytes()
    with pytest.raises(FileNotFoundError, match="choose another"):
        _run(dataset, weights, dataset.images, "--input", str(png))
    assert png.read_bytes() == before
    # Overlays of an earlier run are no images of the next one.
    for _ in range(2):
        assert _run(dataset, weights, dataset.images / "output", "--input", str(dataset.images)) == 0
    assert _names(dataset.images / "output") == {"a.png"}
    assert png.read_bytes() == before


def test_no_image(dataset: TinyDataset, weights: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/\*\.jpg"):
        _run(dataset, weights, tmp_path / "output", "--input", "nowhere/*.jpg")


def test_confidence_threshold(dataset: TinyDataset, weights: Path, tmp_path: Path):
    counts = {}
    for threshold in ("0", "1"):
        output = tmp_path / threshold
        extra = ("--input", str(dataset.image(1)), "--save-results", "--confidence-threshold", threshold)
        _run(dataset, weights, output, *extra)
        content = json.loads((output / "predictions.json").read_text())
        counts[threshold] = sum(s["isthing"] for a in content["annotations"] for s in a["segments_info"])
    assert counts["0"] > counts["1"] == 0


@pytest.mark.parametrize("threshold", ["nan", "2", "-0.1"])
def test_a_threshold_that_is_no_score(
    dataset: TinyDataset, weights: Path, tmp_path: Path, threshold: str, capsys: pytest.CaptureFixture[str]
):
    extra = ("--input", str(dataset.image(1)), f"--confidence-threshold={threshold}")
    with pytest.raises(SystemExit):
        _run(dataset, weights, tmp_path, *extra)
    assert f"a number from 0 to 1, not {threshold}" in capsys.readouterr().err


def test_an_option_without_a_value(dataset: TinyDataset, weights: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"the last one is alone: TEST\.AUG\.ENABLED"):
        _run(dataset, weights, tmp_path / "out", "--input", str(dataset.image(1)), opts=("TEST.AUG.ENABLED",))


def test_wrong_num_classes(dataset: TinyDataset, weights: Path, tmp_path: Path):
    opts = ("MODEL.ROI_HEADS.NUM_CLASSES", "80")
    with pytest.raises(ValueError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES is 80: set it to 2"):
        _run(dataset, weights, tmp_path / "output", "--input", str(dataset.image(1)), opts=opts)
    assert not (tmp_path / "output").exists()


def test_half_a_network_has_no_panoptic_map_to_draw(dataset: TinyDataset, weights: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"predicts \['sem_seg'\] and no panoptic map"):
        _run(
            dataset,
            weights,
            tmp_path / "out",
            "--input",
            str(dataset.images),
            opts=("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
        )


def test_missing_json(dataset: TinyDataset, weights: Path, tmp_path: Path):
    dataset.json.unlink()
    with pytest.raises(FileNotFoundError, match=r"panoptic\.json"):
        _run(dataset, weights, tmp_path / "output", "--input", str(dataset.image(1)))


def test_the_embedded_names_need_no_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    for name in ("synthetic_street_train", "synthetic_street_val"):  # whatever ran before in this process
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    load_prediction_config(str(CONFIG), ["MODEL.DEVICE", "cpu"], [])
    assert not (tmp_path / "datasets").exists()
    assert "synthetic_street_val" not in DatasetCatalog


def test_a_checkpoint_alone_names_what_it_sees(dataset: TinyDataset, weights: Path, tmp_path: Path):
    """Neither a config nor a dataset is named: the config lies beside the checkpoint, which knows its categories."""
    output = tmp_path / "output"
    common = ["--input", str(dataset.image(1)), "--output", str(output), "--save-results"]
    assert demo.main([*common, "--config-file", str(weights), "--confidence-threshold", "0"]) == 0
    content = json.loads((output / "predictions.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert names == {1: "ball", 4: "box", 7: "grass", 9: "sky"}
    segments = content["annotations"][0]["segments_info"]
    assert segments and all(s["name"] == names[s["category_id"]] for s in segments)
    assert demo.main([*common, "--opts", "MODEL.WEIGHTS", str(weights)]) == 0
    with pytest.raises(ValueError, match="Which model"):
        demo.main(common)
