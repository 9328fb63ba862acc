"""The report of predictions: one file, the numbers of the evaluation, images within a budget."""

import base64
import csv
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_results import MadeResults

import panoptic_fpn_ext.report
from panoptic_fpn_ext.evaluation import pq_compute
from panoptic_fpn_ext.report.__main__ import main
from panoptic_fpn_ext.report.encoding import encode_map, shrink_map
from panoptic_fpn_ext.report.page import CHART_LIBRARY

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class _Page(HTMLParser):
    """Contents of the scripts by id, all attributes, and the text outside."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []
        self.text, self._id = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._id = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._id = ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.scripts[self._id] = data
        else:
            self.text += data

    def json(self, id_: str) -> dict:
        return json.loads(self.scripts[id_])


def _decoded(image: dict, side: dict) -> np.ndarray:
    """The slow twin of the page's decoder: index map (h, w)."""
    width, height = image["size"]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(side["map"])), np.uint8).reshape(-1, height, width)
    rows = np.bitwise_xor.accumulate(planes, axis=1).astype(int)
    return sum(plane << (8 * number) for number, plane in enumerate(rows))


def test_the_numbers_are_those_of_the_evaluation_and_sum_to_100(tmp_path: Path):
    made = MadeResults(tmp_path)
    main(made.command())
    pq = 100 * pq_compute(made.gt, made.predictions[0])["All"]["pq"]
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["models"][0]["All"]["pq"] == pytest.approx(pq, abs=1e-9)
    tables = content["tables"]
    assert pq + sum(row["points of PQ"] for row in tables["causes"]) == pytest.approx(100)
    assert pq + sum(row["all"] for row in tables["lost-by-class"]) == pytest.approx(100)
    with (tmp_path / "report_tables" / "causes.csv").open() as f:
        assert [float(row["points of PQ"]) for row in csv.DictReader(f)] == [
            r["points of PQ"] for r in tables["causes"]
        ]
    data = _Page(tmp_path / "report.html").json("report-data")
    assert sum(image["lost"] for image in data["images"]) == pytest.approx(100 - pq)
    charted = sum(sum(series["values"]) for series in data["charts"]["lost"]["series"])
    assert charted == pytest.approx(100 - pq, abs=1e-6)


def test_the_page_has_every_segment_and_names_its_cause(tmp_path: Path):
    made = MadeResults(tmp_path)
    main(made.command())
    page = _Page(tmp_path / "report.html")
    data, cost = page.json("report-data"), 0.0
    for number in range(len(data["images"])):
        image = page.json(f"image-{number}")
        for side in (image["truth"], *image["predictions"]):
            index, segments = _decoded(image, side), side["segments"]
            areas = np.bincount(index.reshape(-1), minlength=len(segments) + 1)[1:]
            assert areas.tolist() == [segment["area"] for segment in segments]
            cost += sum(segment["found"][0].get("cost", 0) for segment in segments)
        for k, segment in enumerate(image["truth"]["segments"]):
            match = segment["found"][0].get("match")
            if match is not None:
                assert image["predictions"][0]["segments"][match]["found"][0]["match"] == k
    assert cost == pytest.approx(sum(image["lost"] for image in data["images"]), rel=1e-2)


def test_the_page_stands_alone_and_names_are_text(tmp_path: Path):
    made = MadeResults(tmp_path)
    content = json.loads(made.gt.read_text())
    content["categories"][0]["name"] = EVIL
    content["images"][0]["file_name"] = EVIL
    made.gt.write_text(json.dumps(content))
    predicted = json.loads(made.predictions[0].read_text())
    del predicted["categories"]
    made.predictions[0].write_text(json.dumps(predicted))
    main(made.command("--names", EVIL))
    page = _Page(tmp_path / "report.html")
    assert not {"img", "link", "iframe"} & set(page.tags)
    assert not any(key.startswith("on") or key == "src" for key, _ in page.attributes)
    assert all(value.startswith("#") for key, value in page.attributes if key == "href")
    policy = next(value for key, value in page.attributes if key == "content" and value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert EVIL in page.text
    assert page.json("report-data")["models"] == [EVIL]
    assert not re.search(r"sourceMappingURL", (tmp_path / "report.html").read_text())


def test_two_models_and_what_one_gained(tmp_path: Path):
    made = MadeResults(tmp_path, models=("a", "b"))
    main(made.command())
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    first, second = (100 * pq_compute(made.gt, path)["All"]["pq"] for path in made.predictions)
    for key in ("cause", "class"):
        assert sum(row["gained by b"] for row in tables[f"gained-by-{key}"]) == pytest.approx(second - first)
    for model, path in zip("ab", made.predictions, strict=True):
        main([str(made.gt), str(path), "--output", str(tmp_path / "alone.html")])
        alone = json.loads((tmp_path / "alone.json").read_text())["tables"]["classes"]
        sides = [[row["class"], row["from"], row["to"]] for row in alone]
        assert [[row["class"], row[f"from {model}"], row[f"to {model}"]] for row in tables["classes"]] == sides
    image = _Page(tmp_path / "report.html").json("image-0")
    assert len(image["predictions"]) == 2
    assert all(len(segment["found"]) == 2 for segment in image["truth"]["segments"])


def test_images_keep_to_the_budget(tmp_path: Path):
    made = MadeResults(tmp_path, num=12)
    main(made.command("--max-images", "5"))
    page = _Page(tmp_path / "report.html")
    images = page.json("report-data")["images"]
    assert len(images) == 5
    assert "5 of 12 images" in page.text
    size = sum(len(text) for id_, text in page.scripts.items() if id_.startswith("image-"))
    main(made.command("--max-images", "5", "--max-megabytes", str(0.6 * size / 1e6)))
    page = _Page(tmp_path / "report.html")
    assert 0 < len(page.json("report-data")["images"]) < 5
    assert {f"image-{k}" for k in range(len(page.json("report-data")["images"]))} < set(page.scripts)
    main(made.command("--max-images", "0"))
    assert _Page(tmp_path / "report.html").json("report-data")["images"] == []


def test_an_unreadable_image_spares_the_report(tmp_path: Path):
    made = MadeResults(tmp_path, num=3)
    (made.images / "1.jpg").write_bytes(b"no image")
    (made.images / "2.jpg").unlink()
    main(made.command())
    page = _Page(tmp_path / "report.html")
    assert sorted(page.json(f"image-{k}")["photo"] is None for k in range(3)) == [False, True, True]


def test_a_small_map_keeps_every_segment():
    index = np.zeros((100, 100), np.int32)
    index[50:] = 1
    for number in range(2, 300):
        index[(number * 7) % 100, (number * 13) % 100] = number
    present = set(np.unique(index).tolist())
    small = shrink_map(index, (80, 80), 299)
    assert set(np.unique(small).tolist()) == present
    assert (shrink_map(index, (100, 100), 299) == index).all()
    side, image = {"map": encode_map(small)}, {"size": [80, 80]}
    assert (_decoded(image, side) == small).all()


def test_mistakes_are_sentences(tmp_path: Path):
    made = MadeResults(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main([*made.command(), "--images", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="one model or two"):
        main([str(made.gt), *[str(made.predictions[0])] * 3, "--output", str(tmp_path / "x.html")])
    for names in (["same", "same"], ["one"], ["1", "2", "3"]):
        with pytest.raises(ValueError, match="Each of the 2 models needs a name of its own"):
            main(
                [str(made.gt), *[str(made.predictions[0])] * 2, "--output", str(tmp_path / "x.html"), "--names", *names]
            )
    (tmp_path / "a" / "predictions" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png"):
        main(made.command())
    assert not (tmp_path / "report.html").exists()


def test_the_chart_library_is_the_one_that_npm_has():
    name, version, digest = CHART_LIBRARY
    content = (Path(panoptic_fpn_ext.report.__file__).parent / "assets" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert f"Chart.js v{version}".encode() in content[:200]
    assert b"MIT License" in content[:300]
