"""labelme: one JSON an image, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...coco_json import load_json
from .files import ImageIndex, stem
from .regions import Source, SourceImage
from .shapes import Names, Shape, ellipse_points, regions_of_shapes

__all__ = ["read_labelme"]


def read_labelme(folder: str, images: str | None = None) -> Source:
    """Read a folder of labelme's JSONs: polygons, rectangles, circles and masks; shapes of one ``group_id`` and label
    are one segment; a later shape lies on an earlier one where nothing else decides.

    Raises:
        ValueError: there is no such JSON.
    """
    paths = [os.path.join(root, f) for root, _, files in os.walk(folder) for f in files if f.endswith(".json")]
    index = ImageIndex([images] if images else [folder])
    names = Names()
    found, others = [], 0
    for path in sorted(paths):
        content = load_json(path)
        if not isinstance(content, Mapping) or not isinstance(content.get("shapes"), list):
            others += 1
            continue
        found.append(_labelme_image(path, content, folder, index, names))
    if not found:
        raise ValueError(f"There is no JSON of labelme in {folder}.")
    notes = [f"{others} JSON files that are not labelme's"] if others else []
    names.sort()
    return Source(names.categories, found, sorted(paths), notes=notes)


def _labelme_image(path: str, content: Mapping[str, Any], folder: str, index: ImageIndex, names: Names) -> SourceImage:
    relative = os.path.relpath(os.path.dirname(path), folder)
    name = str(content.get("imagePath") or "").replace("\\", "/")
    size = None
    if content.get("imageHeight") and content.get("imageWidth"):
        size = int(content["imageHeight"]), int(content["imageWidth"])
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    try:
        image_path = beside if name and os.path.isfile(beside) else index.find(name or stem(path))
    except ValueError as error:
        return SourceImage(path, os.path.relpath(path, folder), problem=str(error))
    shapes = [_labelme_shape(shape, names, path) for shape in content["shapes"]]
    ending = os.path.splitext(image_path)[1]
    result_name = os.path.normpath(os.path.join(relative, stem(path) + ending)).replace(os.sep, "/")
    return SourceImage(image_path, result_name, partial(regions_of_shapes, shapes=shapes, ids=names.ids), size)


def _labelme_shape(data: Mapping[str, Any], names: Names, path: str) -> Shape:
    try:
        kind = data.get("shape_type") or "polygon"
        points = np.asarray(data["points"], dtype=np.float64).reshape(-1, 2)
        shape = Shape(label=names.add(str(data["label"])), kind=kind, points=points, group=data.get("group_id"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a shape without label or points ({error}): {str(data)[:80]}.") from error
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        shape |= {"kind": "polygon", "points": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]}
    elif kind == "circle":
        radius = math.dist(points[0], points[1])
        shape |= {"kind": "polygon", "points": ellipse_points((points[0][0], points[0][1]), (radius, radius))}
    elif kind == "mask":
        x, y = np.floor(points[0]).astype(int).tolist()
        shape |= {"kind": "array", "array": partial(_decoded_mask, data.get("mask")), "x": x, "y": y}
    return Shape(shape)


def _decoded_mask(encoded: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask that labelme keeps as a PNG in base64: of the shape's box."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            return np.asarray(image.convert("L")) > 0
    except Exception as error:  # base64's and Pillow's
        raise ValueError(f"a shape of type mask cannot be decoded ({error})") from error
