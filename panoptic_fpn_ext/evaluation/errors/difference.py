"""Two models on one ground truth: what the second gained and lost over the first."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .analysis import PanopticErrors
from .bootstrap import Intervals, bootstrap_difference
from .causes import CAUSES, COLUMNS, MATCHED

__all__ = ["Difference", "compare_models"]


@dataclass(frozen=True, eq=False)
class Difference:
    """Second minus first.

    Attributes:
        costs: points of PQ that the second gains by class and cause, (C, len(COLUMNS)), negative where it loses; they
            sum to the difference of PQ.
        intervals: of the difference of PQ, see ``bootstrap_difference``.
        gained: ground-truth segments that only the second matches, by class and by the cause in the first, int64
            (C, len(COLUMNS) - 2).
        lost: those that only the first matches, by class and by the cause in the second.
        images: what the second gains in each image, in points of its PQ's costs, (N,).
    """

    costs: npt.NDArray[np.float64]
    intervals: Intervals
    gained: npt.NDArray[np.int64]
    lost: npt.NDArray[np.int64]
    images: npt.NDArray[np.float64]


def compare_models(
    first: PanopticErrors, second: PanopticErrors, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Difference:
    """What the second model gained and lost over the first; arguments and errors as ``bootstrap_difference``."""
    intervals = bootstrap_difference(first, second, draws=draws, level=level, seed=seed)
    shape = len(first.categories), len(COLUMNS) - 2
    gained, lost = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for a, b in zip(first.images, second.images, strict=True):
        truths = [image.rows[~image.rows["predicted"]] for image in (a, b)]
        if not np.array_equal(truths[0]["id"], truths[1]["id"]):
            raise ValueError(f"Image {a.image_id!r}: the two models were not compared with the same ground truth.")
        for table, (of, other) in ((gained, truths), (lost, truths[::-1])):
            new = (of["cause"] < MATCHED) & (other["cause"] == MATCHED)
            np.add.at(table, (of["category"][new], of["cause"][new]), 1)
    costs = first.losses.costs() - second.losses.costs()
    return Difference(costs, intervals, gained, lost, first.image_costs() - second.image_costs())


assert CAUSES.index("matched") == MATCHED == len(COLUMNS) - 2
