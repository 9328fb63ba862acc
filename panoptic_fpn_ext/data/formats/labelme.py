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
from .files import ImageIndex, files_below, images_below, stem
from .regions import Source, SourceImage
from .shapes import Names, Shape, ellipse_points, regions_of_shapes

__all__ = ["read_labelme"]

_IGNORE = "__ignore__"


def read_labelme(folder: str, images: str | None = None) -> Source:
    """labelme's JSONs: polygons, rectangles, circles and masks.

    Shapes of one ``group_id`` and label are one segment; a later shape lies on an earlier one where nothing else
    decides; ``__ignore__`` is void. An image that is nowhere but in its JSON is taken from there.

    Args:
        folder: of the JSONs, one an image; subfolders are read too.
        images: folder of the images, if they are neither beside the JSONs nor where these say.

    Raises:
        ValueError: there is no such JSON.
    """
    paths = [os.path.join(folder, name) for name in files_below(folder) if name.endswith(".json")]
    index = ImageIndex([images] if images else [folder])
    names = Names()
    found, used = [], []
    for path in paths:
        content = load_json(path)
        if isinstance(content, Mapping) and isinstance(content.get("shapes"), list):
            used.append(path)
            found.append(_labelme_image(path, content, folder, index, names))
    if not found:
        raise ValueError(f"There is no JSON of labelme in {folder}.")
    others = len(paths) - len(used)
    notes = [f"{others} JSON files that are not labelme's"] if others else []
    known = {os.path.realpath(image.path) for image in found}
    alone = [path for path in _images(images or folder) if os.path.realpath(path) not in known]
    notes += [f"{len(alone)} images without a JSON, such as {alone[0]}"] if alone else []
    names.sort()
    return Source(names.categories, found, used, notes=notes, void=[_IGNORE] if _IGNORE in names.ids else [])


def _images(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in images_below(folder)]


def _labelme_image(path: str, content: Mapping[str, Any], folder: str, index: ImageIndex, names: Names) -> SourceImage:
    name = str(content.get("imagePath") or "").replace("\\", "/")
    result_name = os.path.relpath(os.path.splitext(path)[0], folder).replace(os.sep, "/")
    embedded = content.get("imageData")
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    try:
        image_path = beside if name and os.path.isfile(beside) else index.find(name or stem(path))
        embedded = None
    except ValueError as error:
        if not embedded:
            return SourceImage(path, result_name, problem=str(error))
        image_path = path
    try:
        size = _size(content)
        shapes = [_labelme_shape(shape, names) for shape in content["shapes"]]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return SourceImage(path, result_name, problem=f"a shape is none of labelme's ({error})")
    regions = partial(regions_of_shapes, shapes=shapes, ids=names.ids)
    ending = os.path.splitext(name if embedded else image_path)[1]
    content_of = partial(_embedded_image, path) if embedded else None
    return SourceImage(image_path, f"{result_name}{ending}", regions, size, content=content_of)


def _size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    given = content.get("imageHeight"), content.get("imageWidth")
    return None if None in given else (int(given[0] or 0), int(given[1] or 0))


def _embedded_image(path: str) -> bytes:
    """The file that a JSON holds in base64; read anew, so that not all of them are in memory at once."""
    return base64.b64decode(load_json(path)["imageData"])


def _labelme_shape(data: Mapping[str, Any], names: Names) -> Shape:
    kind = data.get("shape_type") or "polygon"
    points = np.asarray(data["points"], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a point that is no two numbers")
    shape = Shape(label=names.add(str(data["label"])), kind=kind, points=points, group=data.get("group_id"))
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        shape |= {"kind": "polygon", "points": [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]}
    elif kind == "oriented_rectangle":
        shape["kind"] = "polygon"
    elif kind == "circle":
        radius = math.dist(points[0], points[1])
        shape |= {"kind": "polygon", "points": ellipse_points((points[0][0], points[0][1]), (radius, radius))}
    elif kind == "mask":
        (x0, y0), (x1, y1) = np.floor(points).astype(int).tolist()
        mask = partial(_decoded_mask, str(data["mask"]), (y1 - y0 + 1, x1 - x0 + 1))
        shape |= {"kind": "array", "array": mask, "x": x0, "y": y0}
    return Shape(shape)


def _decoded_mask(encoded: str, box: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A mask that labelme keeps as a PNG in base64: of the shape's box (h, w), whose far corner counts."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            own = image.height, image.width
            if any(not 0 <= side - pixels <= 1 for side, pixels in zip(box, own, strict=True)):
                raise ValueError(f"it has (height, width) {own}, its box {box}")
            return np.asarray(image.convert("L")) > 0
    except Exception as error:  # base64's and Pillow's
        raise ValueError(f"a shape of type mask cannot be decoded ({error})") from error
