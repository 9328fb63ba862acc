"""Layouts that tools and datasets have beside the plain ones: folders, versions, tables of labels; what is void."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tool_drawing import (
    BOXES,
    CLASSES,
    ON_TOP,
    H,
    W,
    areas,
    converted,
    corners,
    drawn,
    image,
    save,
    save_cityscapes,
    write_labelme,
)

from panoptic_fpn_ext.data.formats.regions import mask_of_polygons
from panoptic_fpn_ext.panoptic_png import id2rgb


def test_labelme_with_images_elsewhere_and_embedded(tmp_path):
    image(tmp_path / "data" / "images" / "a.png")
    write_labelme(tmp_path / "data" / "json" / "a.json", imagePath="../images/a.png")
    data = io.BytesIO()
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(data, "PNG")
    write_labelme(
        tmp_path / "data" / "json" / "b.json",
        imagePath="..\\gone\\b.png",
        imageData=base64.b64encode(data.getvalue()).decode(),
    )
    write_labelme(tmp_path / "data" / "json" / "c.json", imagePath="c.png", imageData="no image")
    lines: list[str] = []
    found = converted(f"labelme {tmp_path}/data/json --output {tmp_path}/out {ON_TOP}", lines)
    assert found == {"all": [areas(), areas()]}
    assert (tmp_path / "out" / "images" / "b.png").read_bytes() == data.getvalue()
    assert "image left out: 1" in "\n".join(lines) and "c.json" in "\n".join(lines)


def test_what_labelme_ignores_is_void_also_on_top_of_others(tmp_path):
    image(tmp_path / "a.png")
    write_labelme(tmp_path / "a.json", imagePath="a.png")
    content = json.loads((tmp_path / "a.json").read_text())
    content["shapes"].append({"label": "__ignore__", "points": corners((0, 1, 16, 3)), "shape_type": "polygon"})
    (tmp_path / "a.json").write_text(json.dumps(content))
    layers = "--things car,person --layers 'road < car < person < __ignore__' --unlabelled sky"
    found = converted(f"labelme {tmp_path} --output {tmp_path}/out {layers}")["all"][0]
    without = {name: sum(n for other, n in areas() if other == name) for name in CLASSES}
    below_void = drawn()[0][1:3]
    expected = {name: n - int((below_void == i).sum()) for i, (name, n) in enumerate(without.items(), start=1)}
    assert {name: sum(n for other, n in found if other == name) for name in CLASSES} == expected
    assert ("sky", W) in found and "__ignore__" not in dict(found)


@pytest.mark.parametrize("left_out", ["car", "road"])
def test_what_is_left_out_does_not_become_what_is_below_it(left_out, tmp_path):
    image(tmp_path / "a.png")
    write_labelme(tmp_path / "a.json", imagePath="a.png")
    found = converted(f"labelme {tmp_path} --output {tmp_path}/out {ON_TOP} --leave-out {left_out}")
    assert found["all"] == [[row for row in areas() if row[0] != left_out]]


@pytest.mark.parametrize("names", ["data.yaml", "classes.txt"])
def test_yolo_without_parts(names, tmp_path):
    image(tmp_path / "images" / "sub" / "a.png")
    (tmp_path / names).write_text("nc: 3\nnames: [road, car, person]\n" if "yaml" in names else "road\ncar\nperson\n")
    with pytest.raises(ValueError, match=r"no image has labels: there is no .*a\.txt"):
        converted(f"yolo {tmp_path}")
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    rows = [
        f"{CLASSES.index(n)} " + " ".join(str(v) for v in (np.array(corners(b)) / (W, H)).ravel()) for n, b in BOXES
    ]
    (tmp_path / "labels" / "sub" / "a.txt").write_text("\n".join(rows))
    assert converted(f"yolo {tmp_path} {ON_TOP}") == {"all": [areas()]}


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_the_version_of_mapillary_that_is_there(version, tmp_path):
    semantic, instance = drawn()
    image(tmp_path / "training" / "images" / "a.jpg")
    save(tmp_path / "training" / version / "instances" / "a.png", semantic.astype(np.uint16) * 256 + instance)
    labels = [{"name": "v", "evaluate": False}, *({"name": n, "instances": n != "road"} for n in CLASSES)]
    (tmp_path / f"config_{version}.json").write_text(json.dumps({"labels": labels}))
    assert converted(f"mapillary {tmp_path} --output {tmp_path}/out") == {"train": [areas()]}


def test_full_ade20k(tmp_path):
    semantic, instance = drawn()
    numbers = np.array([0, 2131, 401, 1831])[semantic]
    folder = tmp_path / "images" / "ADE" / "training" / "urban" / "street"
    image(folder / "ADE_train_1.jpg")
    seg = np.stack([numbers // 256 * 10, numbers % 256, instance * 20], 2).astype(np.uint8)
    save(folder / "ADE_train_1_seg.png", seg)
    save(folder / "ADE_train_1" / "instance_000.png", np.zeros((H, W), np.uint8))
    with pytest.raises(ValueError, match=r"ADE_train_1\.json cannot be opened"):
        converted(f"ade20k {tmp_path} --output {tmp_path}/out")
    names = {2131: "road, route", 401: "car, auto", 1831: "person"}
    objects = [{"name": name, "name_ndx": number} for number, name in names.items()]
    (folder / "ADE_train_1.json").write_text(json.dumps({"annotation": {"object": objects}}))
    assert converted(f"ade20k {tmp_path} --things car,person --output {tmp_path}/out") == {"train": [areas()]}


def test_coco_stuff_maps(tmp_path):
    semantic, _ = drawn()
    image(tmp_path / "images" / "a.jpg")
    ids = np.array([0, 149, 3, 1], np.uint8)[semantic]
    save(tmp_path / "pixelmaps" / "a.png", np.where(np.isin(ids, (1, 3)), 183, ids).astype(np.uint8))
    save(tmp_path / "stuffthingmaps" / "a.png", np.where(ids == 0, 255, ids - 1).astype(np.uint8))
    (tmp_path / "labels.txt").write_text("0: unlabeled\n1: person\n3: car\n149: road\n183: other\n")
    text = f"coco-stuff {tmp_path}/images {tmp_path}/{{}} {tmp_path}/labels.txt --output {tmp_path}/out"
    sums = sorted((name, int((semantic == i).sum())) for i, name in enumerate(CLASSES, start=1))
    lines: list[str] = []
    assert converted(text.format("pixelmaps"), lines) == {"all": [[row for row in sums if row[0] == "road"]]}
    assert converted(text.format("stuffthingmaps") + " --shift 1", lines) == {"all": [sums]}
    assert "Dropped" not in "\n".join(lines)


def test_kitti_of_cvat(tmp_path):
    semantic, instance = drawn()
    image(tmp_path / "default" / "image_2" / "a.png")
    save(tmp_path / "default" / "instance" / "a.png", semantic.astype(np.uint16) * 256 + instance)
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 road\n2 2 2 car\n3 3 3 person\n")
    lines: list[str] = []
    found = converted(f"kitti {tmp_path} --things car,person --output {tmp_path}/out", lines)
    assert found == {"all": [areas()]} and "Dropped" not in "\n".join(lines)
    (tmp_path / "label_colors.txt").write_text("0 0 0 background\n1 1 1 road\n2 2 2 car\n")
    found = converted(f"kitti {tmp_path} --things car --output {tmp_path}/out", lines)
    assert found == {"all": [[row for row in areas() if row[0] != "person"]]}
    assert "no category, in the map of an image: id 3: 1, such as" in "\n".join(lines)


def test_voc_in_folders_and_with_colours_that_the_table_lacks(tmp_path):
    semantic, instance = drawn()
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)], np.uint8)
    image(tmp_path / "pictures" / "sub" / "my image.jpg")
    save(tmp_path / "SegmentationClass" / "sub" / "my image.png", colors[semantic])
    objects = np.stack([instance * 50] * 3, 2)
    objects[5, 2] = (224, 224, 192)  # an outline
    save(tmp_path / "SegmentationObject" / "sub" / "my image.png", objects)
    table = "background:0,0,0::\nroad:128,0,0::\ncar:0,128,0::\nperson:0,0,128::\nignored:224,224,192::\n"
    (tmp_path / "labelmap.txt").write_text(table)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text('"sub/my image"\n')
    text = f"voc {tmp_path} --images {tmp_path}/pictures --output {tmp_path}/out"
    found = converted(f"{text} --things car,person")
    assert found == {"val": [[("car", n - 1) if (name, n) == ("car", 24) else (name, n) for name, n in areas()]]}
    (tmp_path / "labelmap.txt").write_text(table.replace("person:0,0,128", "person:0,0,127"))
    lines: list[str] = []
    converted(f"{text} --things car", lines)
    assert "colour (0, 0, 128)" in "\n".join(lines)
    (tmp_path / "labelmap.txt").write_text(table.replace("0,0,128", "0,128,0"))
    with pytest.raises(ValueError, match="car, person share a colour"):
        converted(text)


def test_maps_of_other_images_are_not_laundered(tmp_path):
    _, instance = drawn()
    image(tmp_path / "images" / "a.jpg")
    save(tmp_path / "pngs" / "a.png", id2rgb(instance.astype(np.int32)))
    segments = [{"id": i, "category_id": 1, "area": int((instance == i).sum())} for i in (1, 2, 3)]
    images = [{"id": 1, "file_name": "a.jpg", "height": H, "width": W}]
    content = {
        "images": images,
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "car", "isthing": 1}],
    }
    text = f"panoptic {tmp_path}/panoptic.json {tmp_path}/pngs {tmp_path}/images --output {tmp_path}/out"
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    assert len(converted(text)["all"][0]) == 3
    segments[0]["area"] = 1
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"the JSON says 1: is it the map of another image"):
        converted(text)


def test_groups_are_counted(tmp_path):
    for name in ("a_0", "a_1", "b_0"):
        image(tmp_path / f"{name}.png")
        write_labelme(tmp_path / f"{name}.json", imagePath=f"{name}.png")
    text = f"labelme {tmp_path} --output {tmp_path}/out --split 0.6/0.4"
    lines: list[str] = []
    assert {part: len(rows) for part, rows in converted(f"{text} --group '^(.*)_'", lines).items()} == {
        "train": 2,
        "val": 1,
    }
    assert "3 images in 2 groups, 2 of them in 'a'." in lines
    converted(f"{text} --group '^(.*)'", lines)
    assert "nothing is grouped" in "\n".join(lines)


def test_tables_of_datumaro_without_colours(tmp_path):
    semantic, instance = drawn()
    save_cityscapes(tmp_path, "val", ".png")
    (tmp_path / "label_colors.txt").write_text(" road\n car\n person\n")
    found = converted(f"cityscapes {tmp_path} --things car,person --output {tmp_path}/out")
    assert found == {"val": [areas()]}
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)], np.uint8)  # VOC's
    image(tmp_path / "JPEGImages" / "a.jpg")
    save(tmp_path / "SegmentationClass" / "a.png", colors[semantic])
    save(tmp_path / "SegmentationObject" / "a.png", colors[instance])
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:::\nroad:::\ncar:::\nperson:::\n"
    )
    found = converted(f"voc {tmp_path} --things car,person --output {tmp_path}/out2")
    assert found == {"all": [areas()]}


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_filled_as_cocos_own_tools_fill_them(seed):
    """To the pixel, also of polygons that leave the image: ties are rounded as in the whole image."""
    generator = np.random.default_rng(seed)
    size = (300, 411)
    for _ in range(40):
        center, points = generator.uniform(-20, 430, 2), int(generator.integers(3, 9))
        polygon = (center + generator.uniform(-60, 60, (points, 2))).round(int(generator.integers(0, 3))).ravel()
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon.tolist()], *size))).astype(bool)
        found, whole = mask_of_polygons([polygon.tolist()], size), np.zeros(size, bool)
        if found is not None:
            found.window(whole)[...] = found.mask
        assert np.array_equal(whole, expected)
