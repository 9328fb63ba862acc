import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from panoptic_fpn_ext.data.coco_panoptic import check_files_exist
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CATEGORIES = [
    {"id": 3, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 8, "name": "road", "isthing": 0},
]


@pytest.fixture
def files(tmp_path: Path) -> dict:
    """Two images, one with a dot in its name and no .jpg, with their annotations."""
    content = {"images": [], "annotations": [], "categories": CATEGORIES}
    for image_id, name in ((1, "a.b.bmp"), (2, "c.jpeg")):
        Image.new("RGB", (6, 4)).save(tmp_path / name)
        ids = np.full((4, 6), 20)
        ids[1:3, 1:4] = 10
        write_panoptic_png(str(tmp_path / f"{image_id}.png"), ids)
        content["images"].append({"id": image_id, "file_name": name, "height": 4, "width": 6})
        segments = [
            {"id": 10, "category_id": 3, "iscrowd": 0, "area": 6, "bbox": [1, 1, 3, 2]},
            {"id": 20, "category_id": 8},
        ]
        content["annotations"].append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
    return {"root": tmp_path, "json": tmp_path / "panoptic.json", "content": content}


def _register(files, register, name="two_images", **kwargs):
    files["json"].write_text(json.dumps(files["content"]))
    return register(name, files["root"], files["root"], files["json"], **kwargs)


def test_registers_everything_from_the_json(files, register):
    name = _register(files, register)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["car"]
    assert metadata.thing_colors == [(0, 0, 142)]
    assert metadata.stuff_classes == ["things", "road"]
    assert metadata.evaluator_type == "coco_panoptic_seg"
    first, second = DatasetCatalog.get(name)
    assert first["file_name"] == str(files["root"] / "a.b.bmp")
    assert second["pan_seg_file_name"] == str(files["root"] / "2.png")
    assert (first["height"], first["width"], first["image_id"]) == (4, 6, 1)
    assert first["segments_info"] == [
        {"id": 10, "category_id": 0, "isthing": True, "iscrowd": 0, "area": 6, "bbox": [1, 1, 3, 2]},
        {"id": 20, "category_id": 1, "isthing": False, "iscrowd": 0},
    ]
    assert "annotations" not in first


def test_registering_twice(files, register):
    name = _register(files, register)
    _register(files, register)
    with pytest.raises(ValueError, match=f"{name}.*sem_seg_space|{name}.*stuff"):
        _register(files, register, sem_seg_space="all_classes")


def test_polygons_of_an_instance_file_are_the_other_truth(files, register):
    polygon = {"id": 1, "image_id": 2, "category_id": 3, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2]}
    polygon["segmentation"] = [[0, 0, 2, 0, 2, 2, 0, 2]]
    instances = {"images": files["content"]["images"][1:], "annotations": [polygon], "categories": CATEGORIES[:1]}
    path = files["root"] / "instances.json"
    path.write_text(json.dumps(instances))
    name = _register(files, register, instances_json=str(path))
    (only,) = DatasetCatalog.get(name)  # the first image is not in the instance file
    assert only["image_id"] == 2
    assert only["annotations"][0]["category_id"] == 0
    assert only["annotations"][0]["segmentation"] == polygon["segmentation"]
    assert MetadataCatalog.get(name).json_file == str(path)


def test_instances_that_call_a_category_otherwise_are_refused(files, register):
    renamed = [{**CATEGORIES[0], "name": "another"}]
    path = files["root"] / "renamed.json"
    path.write_text(json.dumps({"images": files["content"]["images"], "annotations": [], "categories": renamed}))
    name = _register(files, register, instances_json=str(path))
    with pytest.raises(ValueError, match=r"(?s)panoptic\.json and .*renamed\.json differ:.*is 'another'"):
        DatasetCatalog.get(name)


def test_missing_paths_are_named_at_once(files, register):
    with pytest.raises(FileNotFoundError, match="image_root /nowhere"):
        register("missing", "/nowhere", files["root"], files["json"])


def test_missing_images_are_counted_and_named(files, register):
    name = _register(files, register)
    (files["root"] / "c.jpeg").unlink()
    (files["root"] / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)2 of 4 files.*1\.png.*c\.jpeg"):
        DatasetCatalog.get(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(category_id=5),
            r"panoptic\.json.*image 1.*segment 10 has an unknown category: 5.*\[3, 8\]",
        ),
        (lambda c: c["annotations"][0]["segments_info"][0].update(id=0), "segment 0: id must be .*got 0"),
        (lambda c: c["annotations"][0].update(image_id=77), "77"),
        (lambda c: c["annotations"][0].pop("segments_info"), "segments_info"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "more than once: 1"),
        (lambda c: c["annotations"].clear(), "no annotations"),
    ],
)
def test_bad_annotations(files, register, change, message):
    change(files["content"])
    name = _register(files, register)
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get(name)


def test_no_json_and_no_panoptic_json(files, register):
    files["json"].write_text("{ not json")
    with pytest.raises(ValueError, match=r"panoptic\.json is not valid JSON"):
        register("broken", files["root"], files["root"], files["json"])
    files["json"].write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"lacks \['annotations', 'categories'\]"):
        register("broken", files["root"], files["root"], files["json"])


def test_missing_files_come_with_a_remedy(tmp_path):
    dicts = [{"file_name": str(tmp_path / "a.jpg"), "pan_seg_file_name": str(tmp_path / "a.png")}]
    with pytest.raises(FileNotFoundError, match=r"(?s)2 of 2 files .* do not exist\. Bring them, take .*a\.jpg"):
        check_files_exist(dicts)
    dicts[0]["file_name"] = f"{tmp_path}/sub\\a.jpg"
    with pytest.raises(FileNotFoundError, match=r"Write / for \\ in the JSON"):
        check_files_exist(dicts)
