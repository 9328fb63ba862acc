"""How sure a figure is: intervals over images that are drawn again and again, and over pairs for two models."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .analysis import PanopticErrors
from .causes import MATCHED
from .costs import GROUPS, segment_losses

__all__ = ["Intervals", "bootstrap", "bootstrap_difference"]

_DRAWS_AT_ONCE = 128
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals in points of PQ: by group (``GROUPS``), and by class, (C, 2); NaN where no class occurs."""

    groups: dict[str, Interval]
    per_class: npt.NDArray[np.float64]


def bootstrap(errors: PanopticErrors, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Intervals:
    """Percentile bootstrap of PQ over the images: N of them are drawn with replacement, ``draws`` times.

    Args:
        errors: an evaluation.
        draws: how often.
        level: share of the draws inside the interval.
        seed: of the draws; the same seed gives the same intervals.
    """
    return _intervals(errors, [_by_class(errors, draws, seed)], level)


def bootstrap_difference(
    first: PanopticErrors, second: PanopticErrors, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Intervals:
    """As :func:`bootstrap`, of the second model's PQ minus the first one's on the same images in each draw.

    Raises:
        ValueError: the images or categories of the two differ.
    """
    same = [image.image_id for image in first.images] == [image.image_id for image in second.images]
    if not same or first.categories != second.categories:
        raise ValueError("Two models can be compared on the same images and categories only; give both the same JSON.")
    return _intervals(first, [_by_class(model, draws, seed) for model in (first, second)], level)


def _by_class(errors: PanopticErrors, draws: int, seed: int) -> npt.NDArray[np.float64]:
    """PQ of each class in each draw, float64 (draws, C), NaN where the class does not occur."""
    sums = _image_sums(errors)
    number, classes = len(sums), sums.shape[2]
    rng = np.random.default_rng(seed)
    result = np.empty((draws, classes))
    for start in range(0, draws, _DRAWS_AT_ONCE):
        part = result[start : start + _DRAWS_AT_ONCE]
        times = rng.multinomial(number, np.full(number, 1 / number), size=len(part)).astype(np.float64)
        lost, sizes = (times @ sums[:, kind] for kind in (0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            part[...] = 100 * (1 - lost / sizes)
    return result


def _image_sums(errors: PanopticErrors) -> npt.NDArray[np.float64]:
    """Losses, and TP + FP/2 + FN/2, of each image and class, float64 (N, 2, C)."""
    rows, classes = errors.rows, len(errors.categories)
    unmatched = rows["cause"] < MATCHED
    size = np.where(unmatched, 0.5, (rows["cause"] == MATCHED) & ~rows["predicted"])
    keys = errors.image_of_row * classes + rows["category"]
    shape = len(errors.images), classes
    columns = [np.bincount(keys, w, minlength=shape[0] * classes) for w in (segment_losses(rows).sum(axis=1), size)]
    return np.stack([column.reshape(shape) for column in columns], axis=1)


def _intervals(errors: PanopticErrors, drawn: list[npt.NDArray[np.float64]], level: float) -> Intervals:
    sides = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    isthing = np.array([errors.categories.isthing(id_) for id_ in errors.categories.dataset_ids], dtype=np.bool_)
    members = dict(zip(GROUPS, (np.ones_like(isthing), isthing, ~isthing), strict=True))
    groups = {}
    for name, inside in members.items():
        values = [_mean(pq[:, inside]) for pq in drawn]
        groups[name] = _percentiles(values[-1] - values[0] if len(values) > 1 else values[0], sides)
    each = drawn[-1] - drawn[0] if len(drawn) > 1 else drawn[0]
    return Intervals(groups, np.array([_percentiles(column, sides) for column in each.T]).reshape(-1, 2))


def _mean(pq: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Over the classes that occur, (draws,)."""
    occurs = ~np.isnan(pq)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(occurs, pq, 0).sum(axis=1) / occurs.sum(axis=1))


def _percentiles(values: npt.NDArray[np.float64], sides: list[float]) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, sides)
    return float(low), float(high)
