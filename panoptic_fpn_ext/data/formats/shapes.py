"""What annotation tools have in common: shapes with a label, drawn one over another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .regions import BEYOND, BoxMask, Region, is_beyond, mask_of_array, mask_of_polygons, mask_of_row_runs

__all__ = ["Names", "Shape", "ellipse_points", "regions_of_shapes", "result_name"]


_CIRCLE_POINTS = 64


class Names:
    """Numbers names 1, 2, … in the order in which they come, or of the alphabet."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def add(self, name: str) -> str:
        """The name, which now has a number."""
        self.ids.setdefault(name, len(self.ids) + 1)
        return name

    def sort(self) -> None:
        """Number anew, by the alphabet: where nothing else orders names, the order of files must not."""
        self.ids.update({name: i for i, name in enumerate(sorted(self.ids), start=1)})

    @property
    def categories(self) -> list[dict[str, Any]]:
        """``id`` and ``name`` of all names so far."""
        return sorted(({"id": i, "name": name} for name, i in self.ids.items()), key=lambda row: row["id"])


class Shape(dict[str, Any]):
    """A shape of any tool: ``label``, ``kind`` (``polygon``, ``rows``, ``array``, or one without area), what it
    needs, ``z`` and ``group``."""


def regions_of_shapes(
    size: tuple[int, int], shapes: Sequence[Mapping[str, Any]], ids: Mapping[str, int], relative: bool = False
) -> tuple[list[Region], Mapping[str, int]]:
    """Regions of shapes, whose labels have ``ids``; ``relative`` points are shares of the image's width and height."""
    dropped: Counter[str] = Counter()
    regions = []
    for shape in shapes:
        if shape["kind"] not in _MASKS:
            dropped[f"{shape['kind']} (it has no mask)"] += 1
            continue
        mask = _MASKS[shape["kind"]](shape, size, relative)
        if shape["kind"] == "polygon":
            points = np.asarray(shape["points"], dtype=np.float64).reshape(-1, 2)
            dropped[BEYOND] += is_beyond(points * size[::-1] if relative else points, size)
        if mask is None:
            dropped["shape without a pixel in the image"] += 1
            continue
        regions.append(Region(ids[shape["label"]], mask, z=shape.get("z", 0.0), group=shape.get("group")))
    return regions, +dropped


def _polygon_mask(shape: Mapping[str, Any], size: tuple[int, int], relative: bool) -> BoxMask | None:
    points = np.asarray(shape["points"], dtype=np.float64).reshape(-1, 2)
    if len(points) < 3:
        return None
    return mask_of_polygons([(points * size[::-1] if relative else points).reshape(-1).tolist()], size)


def _rows_mask(shape: Mapping[str, Any], size: tuple[int, int], relative: bool) -> BoxMask | None:
    mask = mask_of_row_runs(shape["counts"], shape["x"], shape["y"], shape["size"], size)
    return None if mask is None else _clipped(mask, size)


def _array_mask(shape: Mapping[str, Any], size: tuple[int, int], relative: bool) -> BoxMask | None:
    mask = mask_of_array(shape["array"](size), shape.get("x", 0), shape.get("y", 0))
    return None if mask is None else _clipped(mask, size)


def _clipped(mask: BoxMask, size: tuple[int, int]) -> BoxMask | None:
    """The part of a mask that is inside the image."""
    left, top = max(0, -mask.x), max(0, -mask.y)
    inside = mask.mask[top : size[0] - mask.y, left : size[1] - mask.x]
    return mask_of_array(inside, mask.x + left, mask.y + top) if inside.size else None


_MASKS = {"polygon": _polygon_mask, "rows": _rows_mask, "array": _array_mask}


def ellipse_points(
    center: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> npt.NDArray[np.float64]:
    """A polygon (P, 2) around an ellipse; ``angle`` in degrees, clockwise on the screen."""
    steps = np.arange(_CIRCLE_POINTS) * (2 * math.pi / _CIRCLE_POINTS)
    along, across = radii[0] * np.cos(steps), radii[1] * np.sin(steps)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    xs, ys = center[0] + along * cosine - across * sine, center[1] + along * sine + across * cosine
    return np.stack([xs, ys], axis=1)


def result_name(name: str) -> str:
    """A name as the result has it: with ``/``, and not absolute."""
    return name.replace("\\", "/").lstrip("/")
