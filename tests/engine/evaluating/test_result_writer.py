"""Results in COCO panoptic format."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.engine import PanopticResultWriter
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

CATEGORIES = PanopticCategories(
    [
        {"id": 1, "name": "ball", "isthing": 1, "color": [1, 2, 3]},
        {"id": 7, "name": "grass", "isthing": 0, "color": [4, 5, 6]},
        {"id": 4, "name": "box", "isthing": 1},
        {"id": 9, "name": "sky", "isthing": 0},
    ]
)
MAP = np.array([[0, 1, 1, 0], [3, 1, 2, 2], [3, 3, 2, 2]], dtype=np.int32)
SEGMENTS = [
    {"id": 1, "isthing": True, "category_id": 1, "score": 0.75, "instance_id": 0},
    {"id": 2, "isthing": False, "category_id": 1, "area": 4},
    {"id": 3, "isthing": False, "category_id": 2, "area": 3},
]


def _content(folder: Path) -> dict:
    return json.loads((folder / "predictions.json").read_text())


def test_json_and_png_say_what_was_predicted(tmp_path: Path):
    with PanopticResultWriter(str(tmp_path), CATEGORIES) as writer:
        writer.write(5, "in/x.y.jpg", torch.from_numpy(MAP), SEGMENTS)
    content = _content(tmp_path)
    assert content["images"] == [{"id": 5, "file_name": "in/x.y.jpg", "height": 3, "width": 4}]
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (5, "x.y.png")
    assert annotation["segments_info"] == [
        {"id": 1, "category_id": 4, "name": "box", "isthing": 1, "iscrowd": 0, "area": 3, "bbox": [1, 0, 2, 2]}
        | {"score": 0.75},
        {"id": 2, "category_id": 7, "name": "grass", "isthing": 0, "iscrowd": 0, "area": 4, "bbox": [2, 1, 2, 2]},
        {"id": 3, "category_id": 9, "name": "sky", "isthing": 0, "iscrowd": 0, "area": 3, "bbox": [0, 1, 2, 2]},
    ]
    assert [(c["id"], c["name"], c["isthing"]) for c in content["categories"]] == [
        (1, "ball", 1),
        (4, "box", 1),
        (7, "grass", 0),
        (9, "sky", 0),
    ]
    assert [c["color"] for c in content["categories"][:3:2]] == [[1, 2, 3], [4, 5, 6]]
    assert np.array_equal(read_panoptic_png(str(tmp_path / "predictions" / "x.y.png")), MAP)


def test_images_of_the_same_stem_get_files_of_their_own(tmp_path: Path):
    with PanopticResultWriter(str(tmp_path), CATEGORIES) as writer:
        for image_id, name in enumerate(("a/x.jpg", "b/x.png", "c/X.jpg")):
            writer.write(image_id, name, MAP, SEGMENTS)
    names = [a["file_name"] for a in _content(tmp_path)["annotations"]]
    assert names == ["x.png", "x_2.png", "X_3.png"]
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == set(names)


def test_an_exception_leaves_the_finished_images_usable(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), PanopticResultWriter(str(tmp_path), CATEGORIES) as writer:
        writer.write(1, "x.jpg", MAP, SEGMENTS)
        raise KeyboardInterrupt
    assert [a["file_name"] for a in _content(tmp_path)["annotations"]] == ["x.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"predictions", "predictions.json"}


def test_the_arguments_stay_as_they_are_and_empty_maps_are_fine(tmp_path: Path):
    panoptic_map, segments = MAP.copy(), [dict(s) for s in SEGMENTS]
    with PanopticResultWriter(str(tmp_path), CATEGORIES) as writer:
        writer.write(1, "x.jpg", panoptic_map, segments)
        writer.write("two", "y.jpg", np.zeros((2, 2), np.int64), [])
    assert np.array_equal(panoptic_map, MAP)
    assert segments == SEGMENTS
    assert _content(tmp_path)["annotations"][1]["segments_info"] == []


@pytest.mark.parametrize("segments", [SEGMENTS[:2], [*SEGMENTS, {"id": 8, "isthing": True, "category_id": 0}]])
def test_a_map_that_does_not_agree_with_its_segments(tmp_path: Path, segments: list):
    with (
        PanopticResultWriter(str(tmp_path), CATEGORIES) as writer,
        pytest.raises(ValueError, match=r"x\.jpg: the map has segments"),
    ):
        writer.write(1, "x.jpg", MAP, segments)
    assert _content(tmp_path)["annotations"] == []


def test_what_else_is_refused(tmp_path: Path):
    with PanopticResultWriter(str(tmp_path), CATEGORIES) as writer:
        writer.write(1, "x.jpg", MAP, SEGMENTS)
        with pytest.raises(ValueError, match=r"image id 1 is that of x\.jpg"):
            writer.write(1, "y.jpg", MAP, SEGMENTS)
        with pytest.raises(ValueError, match=r"x\.png is written already"):
            writer.write(2, "y.jpg", MAP, SEGMENTS, png_name="x.png")
        with pytest.raises(ValueError, match="integer array"):
            writer.write(3, "z.jpg", MAP.astype(float), SEGMENTS)
        with pytest.raises(KeyError, match="category_id 5"):
            writer.write(4, "z.jpg", np.ones((2, 2), int), [{"id": 1, "isthing": True, "category_id": 5}])
    assert len(_content(tmp_path)["annotations"]) == 1


def test_panopticapi_reads_it(tmp_path: Path):
    evaluation = pytest.importorskip("panopticapi.evaluation")
    with PanopticResultWriter(str(tmp_path / "results"), CATEGORIES) as writer:
        for image_id in (1, 2):
            writer.write(image_id, f"{image_id}.jpg", MAP, SEGMENTS)
    truth = _content(tmp_path / "results")
    (tmp_path / "truth").mkdir()
    shifted = np.where(MAP == 1, 300, MAP)
    for annotation in truth["annotations"]:
        write_panoptic_png(str(tmp_path / "truth" / annotation["file_name"]), shifted)
        annotation["segments_info"][0]["id"] = 300
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    result = evaluation.pq_compute(
        str(tmp_path / "truth.json"),
        str(tmp_path / "results" / "predictions.json"),
        str(tmp_path / "truth"),
        str(tmp_path / "results" / "predictions"),
    )
    assert result["All"]["pq"] == result["Things"]["pq"] == result["Stuff"]["pq"] == 1
