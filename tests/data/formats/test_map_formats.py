"""Each format of maps and masks, written here by the plainest means, gives the map that was drawn by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from format_drawing import (
    CARS,
    LAYERS,
    PERSON,
    SHAPES,
    H,
    W,
    assert_drawn,
    converted,
    corners,
    drawn,
    full_mask,
    gray,
    image,
    semantic_and_instance,
)
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.panoptic_png import id2rgb

TABLE = "id,name,isthing\n1,wall,0\n2,road,0\n3,car,1\n4,person,1\n"


def test_semantic_and_instance_pngs(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "images" / "x" / "a.jpg")
    gray(tmp_path / "sem" / "x" / "a.png", semantic)
    gray(tmp_path / "ins" / "x" / "a.png", instance)
    (tmp_path / "labels.csv").write_text(TABLE)
    paths = " ".join(f"{tmp_path}/{name}" for name in ("images", "sem", "ins", "labels.csv"))
    content, folder = converted(f"semantic-instance {paths} --output {tmp_path}/out")
    assert_drawn(content, folder)


@pytest.mark.parametrize("encoding", ["red,green", "red,blue", "red,256*green+blue", "value/256", "value/1000"])
def test_encoded_pngs(encoding, tmp_path):
    semantic, instance = semantic_and_instance()
    zero = np.zeros_like(semantic)
    pixels = {
        "red,green": np.stack([semantic, instance, zero], 2),
        "red,blue": np.stack([semantic, zero, instance], 2),
        "red,256*green+blue": np.stack([semantic, instance, instance * 0 + 5 * (instance > 0)], 2).astype(np.uint8),
        "value/256": semantic.astype(np.uint16) * 256 + instance,
        "value/1000": semantic.astype(np.uint16) * 1000 + instance,
    }[encoding]
    image(tmp_path / "images" / "a.jpg")
    gray(tmp_path / "maps" / "a.png", pixels)
    (tmp_path / "labels.csv").write_text(TABLE)
    text = (
        f"encoded {tmp_path}/images {tmp_path}/maps {tmp_path}/labels.csv --encoding {encoding} --output {tmp_path}/out"
    )
    assert_drawn(*converted(text))


def test_mapillary(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "training" / "images" / "a.jpg")
    # Mapillary numbers labels and instances from 0, and its last label is not evaluated.
    numbers = np.maximum(instance.astype(np.uint16), 1) - 1
    gray(tmp_path / "training" / "v2.0" / "instances" / "a.png", (semantic.astype(np.uint16) - 1) * 256 + numbers)
    names = [("wall", False), ("road", False), ("car", True), ("person", True), ("ego", False)]
    labels = [{"name": f"x--{n}", "readable": n, "instances": t, "evaluate": n != "ego"} for n, t in names]
    (tmp_path / "config_v2.0.json").write_text(json.dumps({"labels": labels}))
    parts = convert_description(parse_description(f"mapillary {tmp_path} --output {tmp_path}/out"), lambda line: None)
    content = json.loads(Path(parts["train"]).read_text())
    areas = sorted(s["area"] for s in content["annotations"][0]["segments_info"])
    assert areas == sorted(int(m.sum()) for ms in drawn().values() for m in ms)
    assert not any(s["iscrowd"] for s in content["annotations"][0]["segments_info"])


def test_voc(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "JPEGImages" / "a.jpg")
    image(tmp_path / "JPEGImages" / "not_segmented.jpg")
    colors = {"background": (0, 0, 0), "wall": (1, 2, 3), "road": (9, 9, 9), "car": (200, 0, 0), "person": (0, 0, 255)}
    table = np.array(list(colors.values()), np.uint8)
    gray(tmp_path / "SegmentationClass" / "a.png", table[semantic])
    gray(tmp_path / "SegmentationObject" / "a.png", np.stack([instance * 40] * 3, 2).astype(np.uint8))
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in colors.items()]
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    content, folder = converted(f"voc {tmp_path} --things car,person --output {tmp_path}/out")
    assert_drawn(content, folder)


def test_cityscapes_with_labels_of_its_own(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "leftImg8bit" / "train" / "town" / "a_leftImg8bit.png")
    ids = np.where(instance > 0, semantic.astype(np.uint16) * 1000 + instance - 1, semantic)
    gray(tmp_path / "gtFine" / "train" / "town" / "a_gtFine_instanceIds.png", ids.astype(np.uint16))
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 wall\n2 2 2 road\n3 3 3 car\n4 4 4 person\n")
    text = f"cityscapes {tmp_path} --things car,person --output {tmp_path}/out"
    parts = convert_description(parse_description(text), lambda line: None)
    segments = json.loads(Path(parts["train"]).read_text())["annotations"][0]["segments_info"]
    assert sorted(s["area"] for s in segments) == sorted(int(m.sum()) for ms in drawn().values() for m in ms)


def test_kitti_step(tmp_path):
    semantic, instance = semantic_and_instance()
    train_ids = np.array([255, 3, 0, 13, 11], np.uint8)[semantic]  # wall, road, car, person
    image(tmp_path / "images" / "0000" / "000001.png")
    pixels = np.stack([train_ids, np.zeros_like(semantic), instance], 2)
    gray(tmp_path / "maps" / "0000" / "000001.png", pixels)
    content, folder = converted(f"kitti-step {tmp_path}/images {tmp_path}/maps --output {tmp_path}/out")
    assert_drawn(content, folder)
    assert [c["name"] for c in content["categories"] if c["isthing"]] == ["person", "car"]


def test_ade20k(tmp_path):
    semantic, instance = semantic_and_instance()
    image(tmp_path / "images" / "training" / "a.jpg")
    gray(tmp_path / "annotations" / "training" / "a.png", semantic)
    zero = np.zeros_like(semantic)
    pixels = np.stack([np.where(instance > 0, semantic + 10, 0).astype(np.uint8), instance, zero], 2)
    gray(tmp_path / "annotations_instance" / "training" / "a.png", pixels)
    names = ["wall", "road, route", "car, auto", "person, individual"]
    rows = [f"{i}\t0.1\t1\t1\t{name}" for i, name in enumerate(names, start=1)]
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows))
    parts = convert_description(parse_description(f"ade20k {tmp_path} --output {tmp_path}/out"), lambda line: None)
    content = json.loads(Path(parts["train"]).read_text())
    segments = content["annotations"][0]["segments_info"]
    assert sorted(s["area"] for s in segments) == sorted(int(m.sum()) for ms in drawn().values() for m in ms)
    assert [c["isthing"] for c in content["categories"]] == [0, 0, 1, 1]
    assert not any(s["iscrowd"] for s in segments)


def test_datasets_of_detectron2s_catalogs(tmp_path):
    semantic, _ = semantic_and_instance()
    image(tmp_path / "a.jpg")
    gray(tmp_path / "a.png", np.array([255, 1, 2, 0, 0], np.uint8)[semantic])  # things, wall, road
    things = {"car": 0, "person": 1}
    masks_of = {"car": CARS[0], "person": PERSON}
    annotations = [{"category_id": things[n], "segmentation": [corners(b)], "iscrowd": 0} for n, b in masks_of.items()]
    annotations.append({"category_id": 0, "segmentation": full_mask(CARS[1]), "iscrowd": 0})
    row = {"file_name": f"{tmp_path}/a.jpg", "height": H, "width": W, "image_id": 1, "annotations": annotations}
    DatasetCatalog.register("formats_test", lambda: [{**row, "sem_seg_file_name": f"{tmp_path}/a.png"}])
    MetadataCatalog.get("formats_test").set(thing_classes=[*things], stuff_classes=["things", "wall", "road"])
    try:
        text = f"registered formats_test --layers 'car < person' --output {tmp_path}/out"
        assert_drawn(*converted(text))
    finally:
        DatasetCatalog.remove("formats_test")
        MetadataCatalog.remove("formats_test")


def test_folders_of_masks(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    for number, (name, box) in enumerate(SHAPES):
        gray(tmp_path / "masks" / "a" / f"{name}_{number}.png", full_mask(box).astype(np.uint8) * 255)
    content, folder = converted(f"masks {tmp_path}/masks --images {tmp_path}/images --output {tmp_path}/out {LAYERS}")
    assert_drawn(content, folder)


def test_panoptic(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    semantic, instance = semantic_and_instance()
    ids = semantic.astype(np.int32) * 300 + instance
    (tmp_path / "pngs").mkdir()
    Image.fromarray(id2rgb(ids)).save(tmp_path / "pngs" / "a.png")
    segments = [{"id": int(i), "category_id": int(i) // 300} for i in np.unique(ids) if i]
    names = ["wall", "road", "car", "person"]
    rows = [{"id": i, "name": n, "isthing": 0} for i, n in enumerate(names, start=1)]  # as datumaro writes it
    images = [{"id": 1, "file_name": "a.jpg", "height": H, "width": W}]
    annotations = [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]
    content = {"images": images, "annotations": annotations, "categories": rows}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    paths = f"{tmp_path}/panoptic.json {tmp_path}/pngs {tmp_path}/images"
    assert_drawn(*converted(f"panoptic {paths} --things car,person --output {tmp_path}/out"))
