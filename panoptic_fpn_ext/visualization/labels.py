"""Names of segments, written where they can be read: inside large segments, beside small ones, not on each other.

Shapes: K segments, H, W drawing.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .text import text_mask

__all__ = ["draw_labels"]

_PLACING_SIDE: Final = 1024  # px, at most, of the map in which places are looked for
_TEXT_SHARE: Final = 72  # text is so many times smaller than the longer side
_LEAST_TEXT: Final = 8  # px, below which text cannot be read
_DARKENED: Final = 64  # of 256, what stays of the image under a label

_Pixels = npt.NDArray[np.uint8]


class _Place(NamedTuple):
    """Where a segment is, in px: the middle of its thickest part, half the thickness, top and bottom."""

    x: float
    y: float
    radius: float
    top: float
    bottom: float
    area: float


class _Box(NamedTuple):
    x: int
    y: int
    width: int
    height: int


def draw_labels(
    canvas: _Pixels, index: npt.NDArray[np.integer], labels: Sequence[str], colors: _Pixels, order: Sequence[int]
) -> None:
    """Write a label for each segment that has a pixel, as far as there is room.

    Args:
        canvas: uint8 (H, W, 3), changed in place.
        index: integer (H, W), k + 1 where segment k is, 0 elsewhere.
        labels: K texts.
        colors: uint8 (K, 3), of the segments.
        order: the K segments, the most important first: it gets the best place and is drawn last.
    """
    height, width = canvas.shape[:2]
    size = min(max(11, round(max(height, width) / _TEXT_SHARE)), int(height / 1.5))
    if size < _LEAST_TEXT:
        return
    placed: list[tuple[_Box, _Pixels, _Pixels]] = []
    for k in order:
        place = _find(index, k + 1)
        mask = None if place is None else _fitting_text(labels[k], size, width, height)
        if place is not None and mask is not None:
            box = _free_box(place, mask.shape[0], mask.shape[1], (height, width), [box for box, *_ in placed])
            placed.append((box, mask, colors[k]))
    for box, mask, color in reversed(placed):
        _write(canvas[box.y : box.y + box.height, box.x : box.x + box.width], mask, color)


def _find(index: npt.NDArray[np.integer], value: int) -> _Place | None:
    """Looks in a map of fewer pixels first; None where the value does not occur."""
    step = math.ceil(max(index.shape) / _PLACING_SIDE)
    found = (index[::step, ::step] == value).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(found)
    if not width:
        if step == 1 or not (index == value).any():
            return None
        row, column = divmod(int(np.argmax(index == value)), index.shape[1])
        return _Place(float(column), float(row), 0.5, float(row), float(row + 1), 1.0)
    inside = np.pad(found[y : y + height, x : x + width], 1)
    _, radius, _, (column, row) = cv2.minMaxLoc(cv2.distanceTransform(inside, cv2.DIST_L2, 3))
    middle = ((x + column - 0.5) * step, (y + row - 0.5) * step)
    return _Place(*middle, radius * step, y * step, (y + height) * step, float(inside.sum()))


def _fitting_text(label: str, size: int, width: int, height: int) -> _Pixels | None:
    """The text with a margin, smaller if it must be; None where it could not be read."""
    mask = text_mask(label, size)
    if mask.shape[1] + size > width:
        size = int(size * width / (mask.shape[1] + size))
        if size < _LEAST_TEXT:
            return None
        mask = text_mask(label, size)
    margin = max(1, size // 6)
    mask = np.pad(mask, ((margin, margin), (2 * margin, 2 * margin)))
    return mask if mask.shape[0] <= height and mask.shape[1] <= width else None


def _free_box(place: _Place, height: int, width: int, size: tuple[int, int], taken: Sequence[_Box]) -> _Box:
    """The first of some places near the segment without another label, or the one that hides least of them."""
    middle = place.y
    if 2 * place.radius < height:  # a small segment is not to be hidden
        middle = place.top - height / 2 if place.top >= height else place.bottom + height / 2
    boxes = np.asarray(taken, dtype=np.int64).reshape(-1, 4)
    best, least = _Box(0, 0, width, height), math.inf
    for step in (0, -1, 1, -2, 2, -3, 3):
        x = round(min(max(place.x - width / 2, 0), size[1] - width))
        y = round(min(max(middle - height / 2 + step * height, 0), size[0] - height))
        across = np.minimum(boxes[:, 0] + boxes[:, 2], x + width) - np.maximum(boxes[:, 0], x)
        down = np.minimum(boxes[:, 1] + boxes[:, 3], y + height) - np.maximum(boxes[:, 1], y)
        hidden = float((across.clip(min=0) * down.clip(min=0)).sum())
        if hidden < least:
            best, least = _Box(x, y, width, height), hidden
    return best


def _write(region: _Pixels, mask: _Pixels, color: _Pixels) -> None:
    """Text in a light tone of the segment's colour on dark ground."""
    light = 128 + color.astype(np.int32) // 2
    ground = region.astype(np.int32) * _DARKENED >> 8
    region[...] = ground + ((light - ground) * mask[..., None].astype(np.int32)) // 255
