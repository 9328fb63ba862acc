"""Checks of one image's files against its annotation; they run in many processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...image_files import read_image
from ...index_masks import index_boxes
from ...panoptic_map import segment_index_map
from ...panoptic_png import read_panoptic_png
from ...structures import UnreadableFileError
from .annotations import Row
from .findings import Findings

__all__ = ["Checked", "check_files"]

_TINY = 16  # px
_HASH_SIDE = 8


@dataclass
class Checked:
    """What was found in one image's files.

    ``areas`` (px) and ``boxes`` (XYWH, px) by segment id; ``void`` and ``pixels``; ``look`` is a 64-bit hash of what
    the image at ``path`` looks like, None if it was not read.
    """

    findings: Findings = field(default_factory=Findings)
    areas: dict[int, int] = field(default_factory=dict)
    boxes: dict[int, list[int]] = field(default_factory=dict)
    pixels: int = 0
    void: int = 0
    look: int | None = None
    path: str = ""


def check_files(row: Row, isthing: Mapping[int, bool], pngs: str, images: str | None) -> Checked:
    """Check an image, its panoptic PNG and its segments against one another.

    Args:
        row: of the JSON.
        isthing: by category.
        pngs, images: folders; without ``images`` only the PNG is looked at.
    """
    checked = Checked()
    size = row.image["height"], row.image["width"]
    if images is not None:
        checked.path = os.path.join(images, row.image["file_name"])
        _check_image(checked.path, size, checked)
    path = os.path.join(pngs, row.annotation["file_name"])
    try:
        ids = read_panoptic_png(path)
    except FileNotFoundError as error:
        checked.findings.add("png missing", str(error))
        return checked
    except ValueError as error:
        is_broken = isinstance(error, UnreadableFileError)
        checked.findings.add("png broken" if is_broken else "png mode", str(error))
        return checked
    if ids.shape != size:
        checked.findings.add("png size", f"{path} has (height, width) {ids.shape}, the JSON {size}")
    _check_segments(path, ids, row.segments, isthing, checked)
    return checked


def _check_image(path: str, size: tuple[int, int], checked: Checked) -> None:
    try:
        image = read_image(path, "RGB")
    except FileNotFoundError:
        checked.findings.add("image missing", path)
        return
    except ValueError as error:
        checked.findings.add("image broken", str(error))
        return
    checked.look = _look(Image.fromarray(image))
    found = image.shape[:2]
    if found != size:
        checked.findings.add("image size", f"{path} has (height, width) {found}, the JSON {size}")


def _look(image: Image.Image) -> int:
    """Where brightness rises from left to right in a tiny copy: the same for copies of other size or quality."""
    tiny = np.asarray(image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)).astype(int)
    bits = (tiny[:, 1:] > tiny[:, :-1]).reshape(-1)
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _check_segments(
    path: str,
    ids: npt.NDArray[np.int32],
    segments: list[dict[str, Any]],
    isthing: Mapping[int, bool],
    checked: Checked,
) -> None:
    rows = {row["id"]: row for row in segments}
    listed = list(rows)
    index_map = segment_index_map(ids, listed)
    areas = np.bincount(index_map.reshape(-1), minlength=len(listed) + 1).tolist()
    boxes = index_boxes(index_map, len(listed)).astype(int).tolist()
    checked.pixels, checked.void = ids.size, int(np.count_nonzero(ids == 0))
    if ids.size and checked.void == ids.size:
        checked.findings.add("all void", path)
    unlisted = sorted(set(np.unique(ids[index_map == 0]).tolist()) - {0})
    if unlisted and _are_exchanged(unlisted, listed):
        checked.findings.add("bgr", path)
        return
    for id_ in unlisted:
        checked.findings.add("id not listed", f"{path}: id {id_}, {int(np.count_nonzero(ids == id_))} px")
    for id_, area, (x0, y0, x1, y1) in zip(listed, areas[1:], boxes[1:], strict=True):
        where = f"{path}, segment {id_}"
        if not area:
            checked.findings.add("no pixel", where)
            continue
        checked.areas[id_], checked.boxes[id_] = area, [x0, y0, x1 - x0, y1 - y0]
        _check_row(rows[id_], area, checked.boxes[id_], where, isthing, checked.findings)
    in_map = [(row["bbox"], checked.boxes[i]) for i, row in rows.items() if i in checked.boxes and "bbox" in row]
    _check_places(in_map, path, checked)


def _check_places(pairs: list[tuple[Any, list[int]]], path: str, checked: Checked) -> None:
    """Boxes may be written in several ways and inexactly; a map of another image has most segments elsewhere."""
    given = [(box, found) for box, found in pairs if all(side > 0 for side in box[2:])]
    elsewhere = [1 for box, found in given if not _overlap([*box], found) and not _overlap(_from_corners(box), found)]
    if 2 * len(elsewhere) > len(given):
        checked.findings.add("elsewhere", f"{path}: {len(elsewhere)} of {len(given)} segments")


def _from_corners(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two boxes, XYWH, share half of what they cover together."""
    spans = [min(first[i] + first[i + 2], second[i] + second[i + 2]) - max(first[i], second[i]) for i in (0, 1)]
    shared = max(spans[0], 0) * max(spans[1], 0)
    return bool(2 * shared >= first[2] * first[3] + second[2] * second[3] - shared)


def _are_exchanged(unlisted: list[int], listed: list[int]) -> bool:
    """Whether ids are those of the list once red and blue change places."""
    exchanged = {(id_ & 0xFF) << 16 | (id_ & 0xFF00) | id_ >> 16 for id_ in unlisted}
    return exchanged <= set(listed)


def _check_row(
    row: Mapping[str, Any], area: int, box: list[int], where: str, isthing: Mapping[int, bool], findings: Findings
) -> None:
    if "area" in row and row["area"] != area:
        findings.add("area", f"{where}: area {row['area']}, the PNG has {area} px")
    if "bbox" in row and list(row["bbox"]) != box:
        findings.add("box", f"{where}: bbox {row['bbox']}, the PNG has {box}")
    if area < _TINY and isthing.get(row["category_id"]) and not row["iscrowd"]:
        findings.add("tiny", f"{where}: {area} px")
