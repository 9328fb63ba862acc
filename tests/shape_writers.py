"""Writers of a small dataset in the source formats that have shapes.

``SHAPE_SOURCES`` is that part of ``SOURCES`` in ``source_writers.py``.
"""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from source_drawing import (
    BOXES,
    CLASSES,
    LAYERS,
    MARGINS,
    THINGS,
    Box,
    H,
    W,
    box_corners,
    box_mask,
    save,
    save_photo,
    write_file,
)


def _coco(root: Path, form: str) -> None:
    def segmentation(box: Box, name: str) -> Any:
        if form == "polygons":
            return [np.ravel(box_corners(box)).tolist()]
        rle = coco_mask.encode(np.asfortranarray(box_mask(box, name), dtype=np.uint8))
        return {"size": rle["size"], "counts": rle["counts"].decode()}

    images, rows = [], []
    for number, name in enumerate(MARGINS, start=1):
        save_photo(root / "images" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "height": H, "width": W + MARGINS[name]})
        for label, box in BOXES:
            x0, y0, x1, y1 = box
            row = {"id": len(rows) + 1, "image_id": number, "category_id": CLASSES.index(label) + 1, "iscrowd": 0}
            bbox = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            rows.append({**row, **bbox, "segmentation": segmentation(box, name)})
    categories = [{"id": i, "name": label, "supercategory": ""} for i, label in enumerate(CLASSES, start=1)]
    write_file(root / "instances.json", {"images": images, "annotations": rows, "categories": categories})


def _coco_with_stuff(root: Path) -> None:
    _coco(root, "polygons")
    content = json.loads((root / "instances.json").read_text())
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] > 1]
    write_file(root / "instances.json", content)
    for name in MARGINS:
        save(root / "stuff" / f"{name}.png", box_mask(BOXES[0][1], name).astype(np.uint8))


def _cvat(root: Path) -> None:
    labels = "".join(f"<label><name>{label}</name></label>" for label in CLASSES)
    images = []
    for number, name in enumerate(MARGINS):
        save_photo(root / "images" / f"{name}.png")
        shapes = []
        for z, (label, box) in enumerate(BOXES):
            x0, y0, x1, y1 = box
            if label == "person":
                runs = f"0, {(x1 - x0) * (y1 - y0)}"
                size = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
                shapes.append(f'<mask label="{label}" rle="{runs}" {size} z_order="{z}"/>')
            else:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in box_corners(box))
                shapes.append(f'<polygon label="{label}" points="{points}" z_order="{z}"/>')
        size = f'width="{W + MARGINS[name]}" height="{H}"'
        images.append(f'<image id="{number}" name="{name}.png" {size}>{"".join(shapes)}</image>')
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    write_file(root / "annotations.xml", f"<annotations>{meta}{''.join(images)}</annotations>")


def _label_studio(root: Path) -> None:
    tasks = []
    for number, name in enumerate(MARGINS, start=1):
        save_photo(root / "images" / f"{name}.png")
        width = W + MARGINS[name]
        results = []
        for label, box in BOXES:
            points = (np.array(box_corners(box)) / (width, H) * 100).tolist()
            size = {"original_width": width, "original_height": H}
            results.append({"type": "polygonlabels", "value": {"points": points, "polygonlabels": [label]}, **size})
        data = {"image": f"/data/upload/1/{name}.png"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results, "was_cancelled": False}]})
    write_file(root / "export.json", tasks)


def _labelme(root: Path) -> None:
    for name in MARGINS:
        save_photo(root / f"{name}.png")
        shapes: list[dict[str, Any]] = []
        for label, box in BOXES:
            shape = {"label": label, "points": box_corners(box), "shape_type": "polygon", "group_id": None}
            if label == "person":
                png = io.BytesIO()
                Image.fromarray(np.full((box[3] - box[1], box[2] - box[0]), 255, np.uint8)).save(png, "PNG")
                corners = [[box[0], box[1]], [box[2] - 1, box[3] - 1]]
                mask = base64.b64encode(png.getvalue()).decode()
                shape |= {"shape_type": "mask", "points": corners, "mask": mask}
            shapes.append(shape)
        size = {"imageHeight": H, "imageWidth": W + MARGINS[name]}
        write_file(root / f"{name}.json", {"shapes": shapes, "imagePath": f"{name}.png", "imageData": None, **size})


def _yolo(root: Path) -> None:
    write_file(root / "data.yaml", f"train: images\nnc: 3\nnames: [{', '.join(CLASSES)}]\n")
    for name in MARGINS:
        save_photo(root / "images" / f"{name}.png")
        rows = []
        for label, box in BOXES:
            values = (np.array(box_corners(box)) / (W + MARGINS[name], H)).ravel()
            rows.append(f"{CLASSES.index(label)} " + " ".join(repr(float(value)) for value in values))
        write_file(root / "labels" / f"{name}.txt", "\n".join(rows) + "\n")


SHAPE_SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "coco polygons": (lambda root: _coco(root, "polygons"), f"coco {{root}}/instances.json {LAYERS}"),
    "coco masks": (lambda root: _coco(root, "masks"), f"coco {{root}}/instances.json {LAYERS}"),
    "coco and stuff maps": (
        _coco_with_stuff,
        f"coco {{root}}/instances.json --images {{root}}/images --stuff-maps {{root}}/stuff {LAYERS}",
    ),
    "cvat": (_cvat, f"cvat {{root}} {THINGS}"),
    "label-studio": (_label_studio, f"label-studio {{root}}/export.json {LAYERS}"),
    "labelme": (_labelme, f"labelme {{root}} {LAYERS}"),
    "yolo": (_yolo, f"yolo {{root}} {LAYERS}"),
}
