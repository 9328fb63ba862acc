"""Label Studio: a JSON of tasks with polygons, ellipses and brush masks in percent of the image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import numpy.typing as npt

from ...coco_json import load_json
from .brush import decode_brush
from .files import MALFORMED, ImageIndex
from .regions import Source, SourceImage, mask_of_polygons
from .shapes import Names, Shape, ellipse_points, regions_of_shapes, result_name

__all__ = ["read_label_studio"]


_LABEL_STUDIO_KINDS = {"polygonlabels": "polygon", "brushlabels": "array", "ellipselabels": "polygon"}


def read_label_studio(annotations: str, images: str | None = None) -> Source:
    """Read a Label Studio export ("JSON"): polygons, ellipses and brush masks in percent of the image.

    Of several annotations of a task, the one marked as ground truth counts, else the first that was not cancelled.

    Raises:
        ValueError: the file is no such export.
    """
    tasks = load_json(annotations)
    if not isinstance(tasks, list) or not all(isinstance(t, Mapping) and "annotations" in t for t in tasks):
        raise ValueError(f"{annotations} is no Label Studio export: it must be a list of tasks with annotations.")
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
    links = [v for v in task.get("data", {}).values() if isinstance(v, str) and "." in v]
    name = _linked_name(links[0]) if links else f"task {task.get('id')}"
    try:
        shapes = [s for result in results for s in _label_studio_shapes(result, names)]
        sizes = {(int(r["original_height"]), int(r["original_width"])) for r in results if r.get("original_width")}
    except MALFORMED as error:
        return SourceImage(name, result_name(name), problem=f"a result is none of Label Studio's ({error})")
    size = sizes.pop() if len(sizes) == 1 else None
    for candidate in (name, name.split("-", 1)[-1]):  # uploads get a prefix "1a2b3c4d-"
        try:
            path = index.find(candidate)
        except ValueError as error:
            message = str(error)
            continue
        return SourceImage(
            path, os.path.basename(path), partial(regions_of_shapes, shapes=shapes, ids=names.ids, relative=True), size
        )
    return SourceImage(name, result_name(name), problem=message)


def _linked_name(link: str) -> str:
    """The file name in a link: ``/data/upload/1/x.jpg``, ``/data/local-files/?d=a/x.jpg``, ``s3://…/x.jpg``."""
    parsed = urlparse(link)
    return unquote(os.path.basename((parse_qs(parsed.query).get("d") or [parsed.path])[0]))


def _label_studio_shapes(result: Mapping[str, Any], names: Names) -> list[Shape]:
    kind = str(result.get("type"))
    value = result.get("value") or {}
    if not kind.endswith("labels"):
        return []
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels:
        return [Shape(label="", kind=f"{kind} without a label")]
    shape = Shape(label=names.add(str(labels[0])), kind=_LABEL_STUDIO_KINDS.get(kind, kind.removesuffix("labels")))
    if kind == "polygonlabels":
        shape["points"] = np.asarray(value["points"], dtype=np.float64).reshape(-1, 2) / 100
    elif kind == "ellipselabels":
        shape["kind"] = "array"
        shape["array"] = partial(_ellipse_array, value=value)
    elif kind == "brushlabels":
        shape["array"] = partial(decode_brush, value["rle"])
    return [shape]


def _ellipse_array(size: tuple[int, int], value: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    x, rx = (value[k] * size[1] / 100 for k in ("x", "radiusX"))
    y, ry = (value[k] * size[0] / 100 for k in ("y", "radiusY"))
    mask = mask_of_polygons([np.ravel(ellipse_points((x, y), (rx, ry), value.get("rotation", 0))).tolist()], size)
    array = np.zeros(size, dtype=bool)
    if mask is not None:
        mask.window(array)[...] = mask.mask
    return array
