"""Every JSON comes in through one reader, by hand: the same figures however a field is written, or one sentence."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input_data import HEIGHT, WIDTH
from coco_json_files import NAME, Files, text_everywhere
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from panoptic_fpn_ext import coco_json
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data.instances import instance_annotations
from panoptic_fpn_ext.engine import build_dataset_evaluator
from panoptic_fpn_ext.evaluation.ground_truth import GroundTruth

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "data")


def _panoptic(files: Files, change: Callable[[dict[str, Any]], object]) -> Any:
    content = copy.deepcopy(files.contents["panoptic"])
    change(content)
    files.save("panoptic", content)
    return files.training()


def test_numbers_and_flags_as_text(files: Files, capsys: pytest.CaptureFixture[str], caplog: Any):
    expected = files.training(), files.evaluation(capsys, caplog)
    for kind in ("panoptic", "predictions"):  # coordinates of instances stay numbers
        files.save(kind, text_everywhere(files.contents[kind]))
    instances = files.contents["instances"]
    rows = [{**a, **{key: str(a[key]) for key in ("id", "image_id", "category_id")}} for a in instances["annotations"]]
    files.save("instances", {**instances, "annotations": [{**a, "iscrowd": bool(a["iscrowd"])} for a in rows]})
    assert (files.training(), files.evaluation(capsys, caplog)) == expected
    assert {d["image_id"] for d in DatasetCatalog.get(NAME)} == {"1", "2"}
    files.ground_truth()
    assert [i["id"] for i in json.loads((files.root / "ap.json").read_text())["images"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ([1, 2, 3], (1, 2, 3)),
        (["1", 2.0, 3], (1, 2, 3)),
        ("#ff8800", (255, 136, 0)),
        ("#FF8800", (255, 136, 0)),
        (None, PanopticCategories([{"id": 1, "name": "a", "isthing": 1}]).metadata()["thing_colors"][0]),
    ],
)
def test_colors(color: Any, expected: tuple[int, int, int]):
    categories = PanopticCategories([{"id": 1, "name": "a", "isthing": 1, "color": color}])
    assert categories.metadata()["thing_colors"] == [expected]


@pytest.mark.parametrize("color", [[], [1, 2], [1, 2, 3, 4], [1, 2, 256], [0.5, 0.1, 0.2], "red", "#fff", "#ff88zz", 7])
def test_colors_that_are_none(color: Any):
    with pytest.raises(ValueError, match=r'category 0 \(id 1, name "a"\): color must be an RGB color'):
        PanopticCategories([{"id": 1, "name": "a", "isthing": 1, "color": color}])


@pytest.mark.parametrize(
    ("flag", "isthing"),
    [(flag, True) for flag in (1, 1.0, True, "1", "true", "True", np.int64(1), np.bool_(True))]
    + [(flag, False) for flag in (0, 0.0, False, "0", "false", "FALSE", np.int64(0), np.bool_(False))],
)
def test_flags(flag: Any, isthing: bool):
    assert PanopticCategories([{"id": np.int32(4), "name": "a", "isthing": flag}]).isthing(4) is isthing


@pytest.mark.parametrize(
    "categories", [None, 3, "abc", {"id": 1}, [], [None], [[]], ["a"], [{"id": True, "name": "a"}]]
)
def test_category_lists_that_are_none(categories: Any):
    with pytest.raises(ValueError, match="categor"):
        PanopticCategories(categories)


def test_ids_that_become_the_same(files: Files):
    with pytest.raises(ValueError, match=r"panoptic\.json: Category ids must be unique, got duplicates: \[1\]"):
        _panoptic(files, lambda c: c["categories"].append({**c["categories"][0], "id": "1"}))
    with pytest.raises(ValueError, match=r"panoptic\.json, annotation of image 1 .*\[1\] occur more than once"):
        _panoptic(files, lambda c: c["annotations"][0]["segments_info"].append({"id": "1", "category_id": 9}))
    with pytest.raises(ValueError, match=r"panoptic\.json lists more than one image with id 1\."):
        _panoptic(files, lambda c: c["images"].append({**c["images"][0], "id": "1"}))
    with pytest.raises(ValueError, match=r"panoptic\.json annotates the same image more than once: 1\."):
        _panoptic(files, lambda c: c["annotations"].append({**c["annotations"][0], "image_id": "1"}))
    with pytest.raises(ValueError, match=r"list of images has file image_1\.jpg more than once"):
        _panoptic(files, lambda c: c["images"].append({**c["images"][0], "id": 3}))


def test_image_ids_of_numbers_and_texts_are_all_texts(files: Files):
    expected = files.ground_truth()[1]

    def rename(content: dict[str, Any]) -> None:
        content["images"][1]["id"] = "münchen_1"
        content["annotations"][1]["image_id"] = "münchen_1"

    for kind in ("panoptic", "instances"):
        rename(files.contents[kind])
        if kind == "instances":
            files.contents[kind]["annotations"][2]["image_id"] = "münchen_1"
            files.contents[kind]["annotations"][3]["image_id"] = "münchen_1"
            files.contents[kind]["annotations"][1]["image_id"] = "1"
        files.save(kind)
    assert files.ground_truth()[1] == [
        (id_, *size) for id_, (_, *size) in zip(("1", "münchen_1"), expected, strict=True)
    ]
    assert [d["image_id"] for d in DatasetCatalog.get(NAME)] == ["1", "münchen_1"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf_8_with_or_without_a_mark(files: Files, mark: bytes):
    content = files.contents["panoptic"]
    content["categories"][0]["name"] = "Straßenlaterne 路灯"
    files.dataset.json.write_bytes(mark + json.dumps(content, ensure_ascii=False).encode())
    files.save("instances")  # it has the same categories
    files.training()
    assert MetadataCatalog.get(NAME).thing_classes[0] == "Straßenlaterne 路灯"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("ä".encode("latin-1"), "not in UTF-8"),
        ('{"images": []}'.encode("utf-16"), "not in UTF-8"),
        (b"", "not valid JSON"),
        (b'{"images": [', "Is it complete"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"images": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1, 2]", r"must be an object with these lists, got \[1, 2\]"),
        (b"null", "not in COCO panoptic format"),
        (b'{"images": {}, "annotations": [], "categories": []}', r"\['images'\] must be lists"),
    ],
)
def test_files_that_are_no_json(files: Files, data: bytes, words: str):
    files.dataset.json.write_bytes(data)
    with pytest.raises(ValueError, match=rf"panoptic\.json.*{words}"):
        files.training()


def test_instances_as_detectron2_reads_them(files: Files):
    categories = PanopticCategories(files.contents["panoptic"]["categories"])
    ours = instance_annotations(str(files.path("instances")), categories)
    theirs = {
        str(d["image_id"]): [{**a, "category_id": categories.contiguous_id(a["category_id"])} for a in d["annotations"]]
        for d in load_coco_json(str(files.path("instances")), "")
    }
    assert ours == theirs and len(ours) == 2


def test_official_instances_as_detectron2_reads_them(coco_sample_dir: Path):
    annotations = coco_sample_dir / "annotations"
    categories = PanopticCategories(coco_json.read_categories(str(annotations / "panoptic_val2017.json")))
    ours = instance_annotations(str(annotations / "instances_val2017.json"), categories)
    for d in load_coco_json(str(annotations / "instances_val2017.json"), ""):
        rows = [{**a, "category_id": categories.contiguous_id(a["category_id"])} for a in d["annotations"]]
        assert ours[str(d["image_id"])] == rows


def test_areas_and_boxes_that_instances_lack_are_measured(files: Files):
    expected = coco_json.read_instances(str(files.path("instances")))["annotations"]
    content = copy.deepcopy(files.contents["instances"])
    for annotation in content["annotations"]:
        del annotation["area"]
        annotation["bbox"] = None
    files.save("instances", content)
    measured = coco_json.read_instances(str(files.path("instances")))["annotations"]
    assert [a["area"] for a in measured] == pytest.approx([a["area"] for a in expected], rel=0.15)
    assert measured[0]["bbox"] == [1, 1, 23, 31]  # of both polygons
    assert measured[1]["bbox"] == expected[1]["bbox"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("segmentation", [1, 2, 3, 4, 5, 6], "annotation 0 .*segmentation must be polygons"),
        ("segmentation", [], "segmentation must be polygons"),
        ("segmentation", {"size": [HEIGHT, WIDTH], "counts": [5, 6]}, "segmentation must be polygons"),
        ("segmentation", {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, "size .* its image .48, 64."),
        ("category_id", 7, r"unknown category: 7, which is not in \[1, 4\]"),
        ("image_id", 77, "no such image"),
        ("id", 3, "2 annotations have this id"),
        ("ignore", 1, '"ignore" is not supported'),
        ("iscrowd", 2, "iscrowd must be 0 or 1"),
    ],
)
def test_instances_that_are_refused(files: Files, field: str, value: Any, words: str):
    files.contents["instances"]["annotations"][0][field] = value
    files.save("instances")
    with pytest.raises(ValueError, match=rf"instances\.json.*{words}"):
        files.training()


def test_an_instance_of_a_category_that_is_no_thing(files: Files):
    files.contents["instances"]["categories"].append({"id": 7, "name": "grass"})
    files.contents["instances"]["annotations"][0]["category_id"] = 7
    files.save("instances")
    with pytest.raises(ValueError, match=r"instances\.json.* 7\b"):
        files.training()


def test_annotation_0_is_renumbered_for_ap(files: Files):
    """COCO's evaluation stores matches as ids of annotations, and 0 as none."""
    files.contents["instances"]["annotations"][0]["id"] = 0
    files.save("instances")
    assert [row[0] for row in files.ground_truth()[0]] == [1, 2, 3, 4]


def test_names_that_lead_elsewhere_are_read_but_not_written(files: Files, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = files.dataset.png(1).rename(elsewhere / "a.png")
    content = files.contents["panoptic"]
    content["annotations"][0]["file_name"] = f"../../elsewhere/{moved.name}"
    content["images"][0]["file_name"] = str(files.dataset.image(1).rename(elsewhere / "b.jpg"))
    files.save("panoptic")
    assert files.training()[0][0]["file_name"] == str(elsewhere / "b.jpg")
    assert GroundTruth(str(files.dataset.json), str(files.dataset.panoptic)).png_names == ["a.png", "image_2.png"]


def test_detectron2s_panoptic_evaluator_gets_converted_fields(files: Files, tmp_path: Path):
    files.save("panoptic", text_everywhere(files.contents["panoptic"]))
    files.training()
    evaluator = build_dataset_evaluator(
        NAME, str(tmp_path), outputs=["panoptic_seg"], panoptic_evaluator="COCOPanopticEvaluator"
    )
    content = json.loads(Path(evaluator._metadata.panoptic_json).read_text())
    assert content["annotations"][0]["segments_info"] == files.contents["panoptic"]["annotations"][0]["segments_info"]
    assert [c["isthing"] for c in content["categories"]] == [1, 1, 0, 0]


def test_a_file_of_instances_is_called_one(files: Files):
    path = files.path("instances")
    for read in (coco_json.read_panoptic, coco_json.read_categories):
        with pytest.raises(ValueError, match=f"{path} has COCO's annotations of instances.*--data 'coco {path}'"):
            read(str(path))
