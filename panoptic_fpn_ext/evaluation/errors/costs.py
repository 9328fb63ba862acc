"""What errors cost in points of PQ; by class and cause the costs sum to 100 - PQ.

The proof. Of a class c with TP matches of IoUs q, FP and FN, let D = TP + FP/2 + FN/2. By definition PQ_c = Σ q / D, so

    100 - PQ_c = 100 (D - Σ q) / D = (100 / D) (Σ (1 - q) + FP · 1/2 + FN · 1/2).

So let each match lose 1 - q and each unmatched segment 1/2: these *losses* of the segments of c sum to D (1 - PQ_c).
A loss of c costs 100 / (D n) points of PQ, where n is the number of classes that occur (D > 0), because PQ is the mean
of their PQ_c; hence all costs sum to 100 - Σ PQ_c / n. Over the things only, with the number of things that occur, the
same holds of PQ_th, and of PQ_st.

What two segments share is counted once for each, in its own class: a car that is called a truck is a loss of 1/2 of
*car*, for the ground truth's segment without a match, and one of 1/2 of *truck*, for the prediction's; both are of the
cause "wrong class". A match loses once, and in two parts: (px near an edge that one of both lacks) / union is of its
boundary, the rest of 1 - q of its interior.

Nothing here rounds unless its numbers do: with ``exact=True`` all of them are fractions.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ...categories import PanopticCategories
from .causes import CAUSES, COLUMNS, MATCHED

__all__ = ["GROUPS", "Losses", "segment_losses"]

GROUPS = ("All", "Things", "Stuff")
_BOUNDARY, _INTERIOR = (COLUMNS.index(name) for name in ("match_boundary", "match_interior"))
_UNMATCHED = len(COLUMNS) - 2


def segment_losses(rows: npt.NDArray[np.void], *, exact: bool = False) -> npt.NDArray[Any]:
    """What each segment loses: for an unmatched one 1/2, for a match its two parts, (N, 2), boundary and interior.

    A match is the ground-truth segment's; what costs nothing has zeros, and an unmatched segment [1/2, 0].

    Args:
        rows: segments, ``SEGMENT_DTYPE`` (N,).
        exact: fractions (objects) in place of float64.
    """
    half, one = (Fraction(1, 2), Fraction(1)) if exact else (0.5, 1.0)
    losses = np.full((len(rows), 2), 0 * one, dtype=object if exact else np.float64)
    losses[rows["cause"] < _UNMATCHED, 0] = half
    matched = (rows["cause"] == MATCHED) & ~rows["predicted"]
    near, common, union = (_numbers(rows[matched][name], exact) for name in ("near_edge", "intersection", "union"))
    losses[matched, 0] = near / union
    losses[matched, 1] = one - common / union - losses[matched, 0]
    return losses


def _numbers(column: npt.NDArray[np.float64], exact: bool) -> npt.NDArray[Any]:
    return np.array([Fraction(value) for value in column.tolist()], dtype=object) if exact else column


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses and counts by class; ``a + b`` is both.

    ``table``: (C, len(COLUMNS)), losses by class and column; ``tp``, ``fp``, ``fn``: int64 (C,). ``fp_by``, ``fn_by``:
    int64 (C, len(COLUMNS)), the same by cause.
    """

    categories: PanopticCategories
    table: npt.NDArray[Any]
    tp: npt.NDArray[np.int64]
    fp_by: npt.NDArray[np.int64]
    fn_by: npt.NDArray[np.int64]

    @classmethod
    def of(cls, categories: PanopticCategories, rows: npt.NDArray[np.void], *, exact: bool = False) -> "Losses":
        """Those of segments, ``SEGMENT_DTYPE`` (N,), of any number of images; ``exact``: as fractions."""
        shape = (len(categories), len(COLUMNS))
        losses = segment_losses(rows, exact=exact)
        table = np.full(shape, losses.dtype.type(0) if not exact else Fraction(0), dtype=losses.dtype)
        unmatched = rows["cause"] < _UNMATCHED
        matched = (rows["cause"] == MATCHED) & ~rows["predicted"]
        np.add.at(table, (rows["category"][unmatched], rows["cause"][unmatched]), losses[unmatched, 0])
        np.add.at(table, (rows["category"][matched], _BOUNDARY), losses[matched, 0])
        np.add.at(table, (rows["category"][matched], _INTERIOR), losses[matched, 1])
        counted = [np.zeros(shape, np.int64) for _ in range(2)]
        for number, of in zip(counted, (rows["predicted"], ~rows["predicted"]), strict=True):
            np.add.at(number, (rows["category"][unmatched & of], rows["cause"][unmatched & of]), 1)
        return cls(categories, table, np.bincount(rows["category"][matched], minlength=shape[0]), *counted)

    def __add__(self, other: "Losses") -> "Losses":
        mine, theirs = ((x.table, x.tp, x.fp_by, x.fn_by) for x in (self, other))
        return Losses(self.categories, *(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def sizes(self) -> npt.NDArray[Any]:
        """TP + FP/2 + FN/2 by class (C,), in the kind of numbers of the table."""
        doubled = 2 * self.tp + self.fp_by.sum(axis=1) + self.fn_by.sum(axis=1)
        return doubled.astype(self.table.dtype) / 2 if self.table.dtype != object else _numbers(doubled, True) / 2

    def group(self, name: str) -> npt.NDArray[np.bool_]:
        """Which classes of a group (one of :data:`GROUPS`) occur, bool (C,)."""
        isthing = np.array([self.categories.isthing(id_) for id_ in self.categories.dataset_ids], dtype=np.bool_)
        kinds = {"All": np.ones_like(isthing), "Things": isthing, "Stuff": ~isthing}
        occurs: npt.NDArray[np.bool_] = self.sizes > 0
        return kinds[name] & occurs

    def price(self, group: str = "All") -> npt.NDArray[Any]:
        """What one loss of each class costs in points of the group's PQ, (C,); 0 of a class that is not in it."""
        inside = self.group(group)
        price = self.table[:, 0] * 0
        price[inside] = 100 / (self.sizes[inside] * int(inside.sum()))
        return price

    def costs(self, group: str = "All") -> npt.NDArray[Any]:
        """Points of the group's PQ by class and column, (C, len(COLUMNS)): they sum to 100 - PQ."""
        return self.table * self.price(group)[:, None]

    def pq(self, group: str = "All") -> Any:
        """PQ in percent, NaN for a group of which no class occurs."""
        return 100 - self.costs(group).sum() if self.group(group).any() else float("nan")

    def repaired(self, column: int, group: str = "All") -> Any:
        """PQ in percent if the errors of one column were mended and nothing else: its false negatives match with IoU 1,
        its false positives are gone, and what matches lose there they lose no more.
        """
        table = self.table.copy()
        table[:, column] = 0 * table[:, column]
        tp, fp_by, fn_by = self.tp + self.fn_by[:, column], self.fp_by.copy(), self.fn_by.copy()
        fp_by[:, column] = fn_by[:, column] = 0
        return Losses(self.categories, table, tp, fp_by, fn_by).pq(group)


assert CAUSES[:_UNMATCHED] == COLUMNS[:_UNMATCHED]
