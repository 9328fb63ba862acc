"""Label Studio: a JSON of tasks with polygons and ellipses in percent of the image, brush masks and bitmasks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import numpy.typing as npt

from ...coco_json import load_json
from .brush import decode_bitmask, decode_brush
from .files import IMAGE_ENDINGS, MALFORMED, ImageIndex
from .regions import Source, SourceImage, mask_of_polygons
from .shapes import Names, Shape, ellipse_points, regions_of_shapes, result_name

__all__ = ["read_label_studio"]


_GEOMETRY = {"points": "polygon", "radiusX": "ellipse", "rle": "brush", "imageDataURL": "bitmask"}
"""Kind of a region that has a mask, by the key that its value has."""


def read_label_studio(annotations: str, images: str | None = None) -> Source:
    """Label Studio's export "JSON": polygons, ellipses, brush masks and bitmasks.

    Of several annotations of a task, the one marked as ground truth counts, else the first that was not cancelled.

    Args:
        annotations: the JSON.
        images: folder of the images; ``images`` beside the JSON, or its own folder, if not given.

    Raises:
        ValueError: the file is no such export.
    """
    tasks = load_json(annotations)
    if not isinstance(tasks, list) or not all(isinstance(t, Mapping) and "annotations" in t for t in tasks):
        raise ValueError(
            f"{annotations} is no Label Studio export: it must be a list of tasks with annotations. Export as 'JSON', "
            "not as 'JSON-MIN'."
        )
    folder = os.path.dirname(os.path.abspath(annotations))
    index = ImageIndex([images] if images else [os.path.join(folder, "images"), folder])
    names = Names()
    found, several = [], 0
    for task in tasks:
        done = [a for a in task["annotations"] if not a.get("was_cancelled")]
        several += len(done) > 1
        if done:
            chosen = next((a for a in done if a.get("ground_truth")), done[0])
            found.append(_label_studio_image(task, chosen.get("result") or [], index, names))
    notes = [f"{several} tasks have several annotations: the ground truth, or the first, was taken"] if several else []
    if len(found) < len(tasks):
        notes.append(f"{len(tasks) - len(found)} tasks without an annotation")
    names.sort()
    return Source(names.categories, found, [annotations], notes=notes)


def _label_studio_image(
    task: Mapping[str, Any], results: Sequence[Mapping[str, Any]], index: ImageIndex, names: Names
) -> SourceImage:
    links = [_linked_name(v) for v in task.get("data", {}).values() if isinstance(v, str) and "." in v]
    of_images = [link for link in links if os.path.splitext(link)[1].lower() in IMAGE_ENDINGS]
    name = next(iter([*of_images, *links]), f"task {task.get('id')}")
    try:
        shapes = _shapes(results, names)
        sizes = {(int(r["original_height"]), int(r["original_width"])) for r in results if r.get("original_width")}
    except MALFORMED as error:
        return SourceImage(name, result_name(name), problem=f"a result is none of Label Studio's ({error})")
    size = sizes.pop() if len(sizes) == 1 else None
    base = os.path.basename(name)
    problem = ""
    for candidate in (name, name.removesuffix(base) + re.sub(r"^[0-9a-f]{8}-", "", base)):  # a prefix of uploads
        try:
            path = index.find(candidate)
        except ValueError as error:
            problem = problem or str(error)
            continue
        regions = partial(regions_of_shapes, shapes=shapes, ids=names.ids, relative=True)
        return SourceImage(path, index.below(path), regions, size)
    return SourceImage(name, result_name(name), problem=problem)


def _linked_name(link: str) -> str:
    """The path in a link: ``/data/upload/1/x.jpg``, ``/data/local-files/?d=a/x.jpg``, ``s3://bucket/x.jpg``."""
    parsed = urlparse(link)
    return unquote((parse_qs(parsed.query).get("d") or [parsed.path])[0]).lstrip("/")


def _shapes(results: Sequence[Mapping[str, Any]], names: Names) -> list[Shape]:
    """Shapes of an annotation; the outline and the label of one may be two results of the same id."""
    values: dict[Any, dict[str, Any]] = {}
    for i, result in enumerate(results):
        values.setdefault(result.get("id", i), {}).update({"": result.get("type"), **(result.get("value") or {})})
    shapes = (_shape(value) for value in values.values())
    found = [shape for shape in shapes if shape is not None]
    for shape in found:
        if shape["label"]:
            names.add(shape["label"])
    return found


def _shape(value: Mapping[str, Any]) -> Shape | None:
    """None for what is no region, such as a choice; ``""`` is the key of the type."""
    kind = next((kind for key, kind in _GEOMETRY.items() if key in value), str(value[""]).removesuffix("labels"))
    labels = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list) and v), None)
    if labels is None:
        is_region = kind in _GEOMETRY.values() or str(value[""]).endswith("labels")
        return Shape(label="", kind=f"{kind} without a label") if is_region else None
    shape = Shape(label=str(labels[0]), kind=kind)
    if kind == "polygon":
        shape["points"] = np.asarray(value["points"], dtype=np.float64).reshape(-1, 2) / 100
    elif kind == "ellipse":
        shape |= {"kind": "array", "array": partial(_ellipse_array, value=value)}
    elif kind == "brush":
        shape |= {"kind": "array", "array": partial(decode_brush, value["rle"])}
    elif kind == "bitmask":
        shape |= {"kind": "array", "array": partial(decode_bitmask, value["imageDataURL"])}
    return shape


def _ellipse_array(size: tuple[int, int], value: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    x, rx = (value[k] * size[1] / 100 for k in ("x", "radiusX"))
    y, ry = (value[k] * size[0] / 100 for k in ("y", "radiusY"))
    mask = mask_of_polygons([np.ravel(ellipse_points((x, y), (rx, ry), value.get("rotation", 0))).tolist()], size)
    array = np.zeros(size, dtype=bool)
    if mask is not None:
        mask.window(array)[...] = mask.mask
    return array
