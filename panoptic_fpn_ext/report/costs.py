"""What each segment and each image costs, laid out for the page.

Shapes: N images, R segments of all images (ground truth and prediction), L = len(COLUMNS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.errors import CAUSES, COLUMNS, Intervals, PanopticErrors, bootstrap
from ..evaluation.errors.costs import segment_losses

__all__ = ["Costs"]

_UNMATCHED = len(COLUMNS) - 2
_MATCHED = CAUSES.index("matched")


@dataclass(frozen=True, eq=False)
class Costs:
    """Of one model: ``rows`` (R,) of all images, ``image`` int (R,) where each lies, ``parts`` float (R, 2) and
    ``column`` int (R, 2) in points of PQ and indices of ``COLUMNS``; ``by_image`` float (N, L).
    """

    errors: PanopticErrors
    rows: npt.NDArray[np.void]
    image: npt.NDArray[np.int64]
    parts: npt.NDArray[np.float64]
    column: npt.NDArray[np.int64]
    by_image: npt.NDArray[np.float64]

    @classmethod
    def of(cls, errors: PanopticErrors) -> Costs:
        """Those of an evaluation."""
        rows = errors.rows
        image = np.repeat(np.arange(len(errors.images)), [len(one.rows) for one in errors.images])
        parts = np.asarray(segment_losses(rows) * errors.losses.price()[rows["category"]][:, None], dtype=np.float64)
        column = np.stack([np.minimum(rows["cause"], _UNMATCHED), np.full(len(rows), _UNMATCHED + 1)], axis=1)
        by_image = np.zeros((len(errors.images), len(COLUMNS)))
        np.add.at(by_image, (image[:, None], column), parts)
        return cls(errors, rows, image, parts, column.astype(np.int64), by_image)

    @cached_property
    def intervals(self) -> Intervals:
        """95 % intervals of PQ, over images that are drawn again and again."""
        return bootstrap(self.errors)

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """Points of PQ by column (L,); they sum to 100 - PQ."""
        return np.asarray(self.by_image.sum(axis=0))

    def worst(self, column: int, most: int, per_class: int) -> list[int]:
        """Rows that lose most by one cause, of equal ones the largest, at most so many of a class."""
        cost = np.where(self.column == column, self.parts, 0).sum(axis=1)
        candidates = np.flatnonzero(cost > 0)
        order = candidates[np.lexsort((-self.rows["pixels"][candidates], -cost[candidates]))]
        taken: dict[int, int] = {}
        result = []
        for row in order.tolist():
            category = int(self.rows["category"][row])
            if taken.get(category, 0) < per_class:
                taken[category] = taken.get(category, 0) + 1
                result.append(row)
            if len(result) == most:
                break
        return result

    def known(self, position: int) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
        """What is known of an image's segments by id, of the ground truth's and of the prediction's."""
        found: tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]] = ({}, {})
        first, last = np.searchsorted(self.image, [position, position + 1])
        for row, cost in zip(self.rows[first:last], self.parts[first:last].sum(axis=1).tolist(), strict=True):
            found[int(row["predicted"])][int(row["id"])] = _known(row, cost)
        return found


def _known(row: Mapping[str, Any] | np.void, cost: float) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if row["union"] > 0:
        result["iou"] = round(float(row["intersection"] / row["union"]), 4)
    if row["cause"] == _MATCHED:
        result["match"] = int(row["other"])
    elif row["cause"] < _UNMATCHED:
        result["cause"] = int(row["cause"])
    if cost:
        result["cost"] = float(f"{cost:.4g}")
    return result
