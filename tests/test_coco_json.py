"""Every JSON comes in through one reader: the same figures however a field is written, or one sentence."""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input_data import HEIGHT, WIDTH, TinyDataset, global_state_restored
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from pycocotools import mask as mask_util

from panoptic_fpn_ext import coco_json
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import register_coco_panoptic
from panoptic_fpn_ext.data.instances import instance_annotations
from panoptic_fpn_ext.engine import build_dataset_evaluator
from panoptic_fpn_ext.evaluation.__main__ import main
from panoptic_fpn_ext.evaluation.ground_truth import GroundTruth
from panoptic_fpn_ext.evaluation.instance_ground_truth import instance_dataset
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

NAME = "tiny_json"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with global_state_restored():
        yield


class Files:
    """A tiny dataset with all kinds of JSON: panoptic and instance annotations, and predictions (two segments of the
    right category, two not); ``save`` writes one, ``figures`` says what becomes of them.
    """

    def __init__(self, root: Path) -> None:
        self.dataset = TinyDataset(root)
        self.root = root
        panoptic = self.dataset.content = copy.deepcopy(self.dataset.content)
        panoptic["annotations"][0]["segments_info"][1]["iscrowd"] = 1
        predictions = {"annotations": copy.deepcopy(panoptic["annotations"])}
        for annotation in predictions["annotations"]:
            annotation["segments_info"][2]["category_id"] = 9
        self.contents = {"panoptic": panoptic, "instances": self._instances(), "predictions": predictions}
        for kind in self.contents:
            self.save(kind)

    def _instances(self) -> dict[str, Any]:
        annotations = []
        for number in (1, 2):
            ids = read_panoptic_png(str(self.dataset.png(number)))
            polygon = [[8.0, 10, 24, 10, 24, 30 + number, 8, 30.5 + number], [1, 1, 3, 1, 2, 3]]
            box = {"segmentation": polygon, "area": 320.5, "bbox": [8, 10, 16, 20 + number], "iscrowd": 0}
            annotations.append({"id": 2 * number, "image_id": number, "category_id": 1, **box})
            rle = mask_util.encode(np.asfortranarray(ids == 4, dtype=np.uint8))
            rle = {"size": rle["size"], "counts": rle["counts"].decode()}
            row = {"segmentation": rle, "area": 288, "bbox": [36, 28, 24, 12], "iscrowd": 1, "keypoints": [3, 4, 2]}
            annotations.append({"id": 2 * number + 1, "image_id": number, "category_id": 4, **row})
        images = copy.deepcopy(self.dataset.content["images"])
        return {"images": images, "annotations": annotations, "categories": self.dataset.content["categories"][:2]}

    def path(self, kind: str) -> Path:
        return self.dataset.json if kind == "panoptic" else self.root / f"{kind}.json"

    def save(self, kind: str, content: Any = None) -> None:
        self.path(kind).write_text(json.dumps(self.contents[kind] if content is None else content))

    def training(self) -> Any:
        """Segments and polygons that training sees, by file; areas and boxes are not trained on."""
        DatasetCatalog.pop(NAME, None)
        MetadataCatalog.pop(NAME, None)
        paths = map(str, (self.dataset.images, self.dataset.panoptic, self.dataset.json))
        register_coco_panoptic(NAME, *paths, instances_json=str(self.path("instances")))
        return [
            (
                {key: d[key] for key in ("file_name", "pan_seg_file_name", "height", "width")},
                [[s[key] for key in ("id", "category_id", "isthing", "iscrowd")] for s in d["segments_info"]],
                [{**a, "bbox": np.round(a["bbox"]).tolist()} for a in d["annotations"]],
                {key: MetadataCatalog.get(NAME).get(key) for key in ("thing_classes", "stuff_classes", "thing_colors")},
            )
            for d in DatasetCatalog.get(NAME)
        ]

    def ground_truth(self) -> Any:
        """What AP is measured against."""
        self.training()
        MetadataCatalog.pop(f"{NAME}@{self.root}/ap.json", None)
        instance_dataset(NAME, f"{self.root}/ap.json")
        content = json.loads((self.root / "ap.json").read_text())
        keys = ("id", "category_id", "iscrowd", "segmentation")
        annotations = [
            [a[key] for key in keys] + [str(a["image_id"]), round(a["area"] / 10)] for a in content["annotations"]
        ]
        return [annotations, [(str(i["id"]), i["height"], i["width"]) for i in content["images"]]]

    def evaluation(self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
        """Output of the command line; a warning that data do not agree is no silence."""
        capsys.readouterr()
        caplog.clear()
        arguments = [str(self.dataset.json), str(self.path("predictions")), "--gt-folder", str(self.dataset.panoptic)]
        main([*arguments, "--pred-folder", str(self.dataset.panoptic)])
        if "does not agree" in caplog.text:
            raise ValueError(caplog.messages[-1])
        return capsys.readouterr().out


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "data")


def _fields(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value, deep inside too, as keys one after another."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from _fields(value, (*path, key))


def _odd_values(value: Any, rng: random.Random) -> Any:
    """Other ways to write a value, and values that it must not have."""
    same: list[Any] = [value]
    if isinstance(value, int):
        same += [str(value), float(value)]
    if value in (0, 1) and not isinstance(value, (list, dict)):
        same += [bool(value), str(bool(value)), str(bool(value)).lower()]
    if isinstance(value, list) and len(value) == 3:
        same += ["#ff8800", "#FF88"]
    wrong = [
        None,
        [],
        {},
        "",
        " ",
        "x",
        -1,
        3.5,
        "3.5",
        float("nan"),
        float("inf"),
        2**70,
        "9" * 30,
        [value],
        [[value]],
    ]
    wrong += [{"a": value}, " 1", "１", "1e3", "-1", 1e300, "\ud800", "a\0b", "yes", [None], [True], -0.5]
    return rng.choice(same if rng.random() < 0.4 else wrong)


def _mutated(content: Any, rng: random.Random) -> tuple[Any, tuple[Any, ...], Any]:
    content = copy.deepcopy(content)
    path = rng.choice(list(_fields(content)))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    action = rng.random()
    if action < 0.1 and isinstance(parent, dict):
        del parent[path[-1]]
        return content, path, "deleted"
    if action < 0.15 and isinstance(parent, list):
        parent.append(parent[path[-1]])
        return content, path, "doubled"
    parent[path[-1]] = _odd_values(parent[path[-1]], rng)
    return content, path, parent[path[-1]]


def _means_something_else(path: tuple[Any, ...], change: Any) -> bool:
    """Changes that make other sound data: names, colours, numbers of pixels, coordinates, an empty list, no crowd."""
    free = {"name", "color", "area", "bbox", "segmentation", "keypoints"}
    emptied = (path[-1] == "segments_info" and change == []) or (path[-1] == "iscrowd" and change in (None, "deleted"))
    return bool(free & set(path)) or change == "doubled" or emptied


def _check(act: Callable[[], Any], expected: Any, path: Path, where: tuple[Any, ...], change: Any) -> str:
    try:
        result = act()
    except (ValueError, KeyError, FileNotFoundError) as error:
        text = str(error)
        assert str(path) in text or "file_name" in where, (where, change, text)
        assert (
            "\n  - " in text
            or len(text.strip().splitlines()) == 1
            or "files of the dataset" in text
            or " differ:\n" in text
        )
        assert not any(word in text for word in ("Traceback", "NoneType", "invalid literal", "unhashable")), text
        return "refused"
    if result != expected:
        assert _means_something_else(where, change), (where, change)
        return "other"
    return "same"


def _fuzz(files: Files, kind: str, act: Callable[[], Any], number: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    expected = act()
    outcomes = {"same": 0, "refused": 0, "other": 0}
    for _ in range(number):
        content, where, change = _mutated(files.contents[kind], rng)
        files.save(kind, content)
        outcomes[_check(act, expected, files.path(kind), where, change)] += 1
    files.save(kind)
    assert act() == expected
    return outcomes


SEED = int(os.environ.get("COCO_JSON_SEED", "0"))
NUMBERS = [40, pytest.param(250, marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["panoptic", "instances"])
@pytest.mark.parametrize("use", ["training", "ground_truth"])
def test_mutated_annotations(files: Files, kind: str, use: str, number: int):
    outcomes = _fuzz(files, kind, getattr(files, use), number, SEED + number)
    assert min(outcomes["same"], outcomes["refused"]) > number / 10, outcomes


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["panoptic", "predictions"])
def test_mutated_evaluations(
    files: Files, kind: str, number: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    outcomes = _fuzz(files, kind, lambda: files.evaluation(capsys, caplog), number, SEED + number)
    assert min(outcomes["same"], outcomes["refused"]) > number / 10, outcomes


# -- by hand ---------------------------------------------------------------------------------------------------------


def _panoptic(files: Files, change: Callable[[dict[str, Any]], object]) -> Any:
    content = copy.deepcopy(files.contents["panoptic"])
    change(content)
    files.save("panoptic", content)
    return files.training()


def _text_everywhere(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _text_everywhere(value) for key, value in content.items()}
    if isinstance(content, list):
        return list(map(_text_everywhere, content))
    return str(content) if isinstance(content, int) else content


def test_numbers_and_flags_as_text(files: Files, capsys: pytest.CaptureFixture[str], caplog: Any):
    expected = files.training(), files.evaluation(capsys, caplog)
    for kind in ("panoptic", "predictions"):  # coordinates of instances stay numbers
        files.save(kind, _text_everywhere(files.contents[kind]))
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
    files.save("panoptic", _text_everywhere(files.contents["panoptic"]))
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
