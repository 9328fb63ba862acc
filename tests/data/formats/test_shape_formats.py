"""Each format of shapes, written here by the plainest means, gives the map that was drawn by hand."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from format_drawing import (
    CARS,
    LAYERS,
    SHAPES,
    H,
    W,
    assert_drawn,
    converted,
    corners,
    drawn,
    full_mask,
    image,
    masks,
    write_coco,
)
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def counts_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a flat mask, background first."""
    runs, value = [0], False
    for pixel in mask.tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def compressed(box: tuple[int, int, int, int]) -> dict:
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(full_mask(box)).astype(np.uint8))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def uncompressed(box: tuple[int, int, int, int]) -> dict:
    return {"size": [H, W], "counts": counts_of(full_mask(box).T.reshape(-1))}


@pytest.mark.parametrize("segmentation", [lambda box: [corners(box)], compressed, uncompressed])
def test_coco(segmentation, tmp_path):
    lines: list[str] = []
    content, folder = converted(f"coco {write_coco(tmp_path, segmentation)} {LAYERS}", lines)
    assert_drawn(content, folder)
    assert [c["name"] for c in content["categories"]] == ["road", "wall", "car", "person"]  # without the root
    text = "\n".join(lines)
    assert "car took 16 px (8.33%) from road" in text and "only groups the others" in text


def test_cvat(tmp_path):
    image(tmp_path / "images" / "sub" / "a.png")
    names = ["wall", "road", "car", "person"]
    labels = "".join(f"<label><name>{name}</name></label>" for name in names)
    order = {"wall": 0, "road": 0, "car": 1, "person": 2}
    shapes = []
    for name, (x0, y0, x1, y1) in SHAPES:
        if name == "person":  # as a mask, whose last pixel is out of it
            runs = ", ".join(map(str, counts_of(np.ones((y1 - y0) * (x1 - x0), bool))))
            size = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
            shapes.append(f'<mask label="{name}" rle="{runs}" {size} z_order="2"/>')
        else:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in np.reshape(corners((x0, y0, x1, y1)), (-1, 2)))
            shapes.append(f'<polygon label="{name}" occluded="0" points="{points}" z_order="{order[name]}"/>')
    shapes.append('<box label="car" xtl="1" ytl="1" xbr="3" ybr="3" z_order="9"/>')
    (tmp_path / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        f'<image id="0" name="sub/a.png" width="{W}" height="{H}">{"".join(shapes)}</image></annotations>'
    )
    lines: list[str] = []
    content, folder = converted(f"cvat {tmp_path} --things car,person", lines)
    assert_drawn(content, folder)
    assert "box (it has no mask): 1" in "\n".join(lines)


def test_labelme(tmp_path):
    image(tmp_path / "a.jpg")
    shapes = []
    for name, (x0, y0, x1, y1) in SHAPES:
        shape = {
            "label": name,
            "shape_type": "polygon",
            "points": np.reshape(corners((x0, y0, x1, y1)), (-1, 2)).tolist(),
        }
        if name == "wall":
            shape |= {"shape_type": "rectangle", "points": [[x1, y1], [x0, y0]]}
        if name == "person":
            data = io.BytesIO()
            Image.fromarray(np.full((y1 - y0, x1 - x0), 255, np.uint8)).save(data, "PNG")
            mask = base64.b64encode(data.getvalue()).decode()
            shape |= {"shape_type": "mask", "points": [[x0, y0], [x1, y1]], "mask": mask}
        shapes.append(shape)
    content = {"version": "5.4.1", "shapes": shapes, "imagePath": "a.jpg", "imageHeight": H, "imageWidth": W}
    (tmp_path / "a.json").write_text(json.dumps(content))
    result, folder = converted(f"labelme {tmp_path} --output {tmp_path}/out {LAYERS}")
    assert_drawn(result, folder)
    assert [c["name"] for c in result["categories"]] == ["car", "person", "road", "wall"]


def test_shapes_of_one_group_are_one_segment(tmp_path):
    image(tmp_path / "a.jpg")
    parts = [
        {"label": "car", "points": np.reshape(corners(box), (-1, 2)).tolist(), "group_id": 3, "shape_type": "polygon"}
        for box in CARS
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": parts, "imagePath": "a.jpg"}))
    content, folder = converted(f"labelme {tmp_path} --output {tmp_path}/out")
    assert [len(m) for m in masks(content, folder).values()] == [1]


def test_yolo(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / split / "images" / "a.jpg")
        names = ["wall", "road", "car", "person"]
        lines = []
        for name, box in SHAPES:
            points = (np.reshape(corners(box), (-1, 2)) / (W, H)).reshape(-1)
            lines.append(f"{names.index(name)} " + " ".join(repr(float(v)) for v in points))
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("\n".join(lines) + "\n2 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../val/images\nnames: [wall, road, car, person]\n"
    )
    parts = convert_description(
        parse_description(f"yolo {tmp_path} --output {tmp_path}/out {LAYERS}"), lambda line: None
    )
    assert set(parts) == {"train", "val"}
    content = json.loads(Path(parts["val"]).read_text())
    annotation = content["annotations"][0]
    ids = read_panoptic_png(str(tmp_path / "out" / "panoptic_val" / annotation["file_name"]))
    areas = sorted(s["area"] for s in annotation["segments_info"])
    assert areas == sorted(int(m.sum()) for ms in drawn().values() for m in ms) and ids.shape == (H, W)


def test_label_studio(tmp_path):
    image(tmp_path / "images" / "1a2b3c4d-a.jpg")
    results = []
    for name, box in SHAPES:
        points = (np.reshape(corners(box), (-1, 2)) / (W, H) * 100).tolist()
        value = {"points": points, "polygonlabels": [name], "closed": True}
        results.append({"type": "polygonlabels", "value": value, "original_width": W, "original_height": H})
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/1a2b3c4d-a.jpg"}, "annotations": [{"result": results}]},
        {"id": 2, "data": {"image": "/data/upload/1/b.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    content, folder = converted(f"label-studio {tmp_path}/export.json {LAYERS}")
    assert_drawn(content, folder)
