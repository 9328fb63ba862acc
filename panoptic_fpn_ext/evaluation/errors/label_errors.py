"""Where the ground truth, not the prediction, may be wrong: a ranked list of suspects.

A suspect needs several signals: a prediction that is confident, of a class that the model knows well, with a shape that
fits, and a kind of disagreement that is rare for its class. Of a model that takes every third truck for a car, one more
says little about the label; of one that never does, much.

========  ============================================================================================================
class     a segment of the ground truth, and a prediction of the same shape and another class
missing   a prediction where the ground truth has nothing of its class, or void
merged    one segment of the ground truth, and several predictions of its class that fill it together
border    a segment and a prediction that agree in class and place, but far less in shape than others of the class do
========  ============================================================================================================
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .analysis import PanopticErrors
from .causes import CAUSES

__all__ = ["KINDS", "LabelError", "find_label_errors"]

KINDS: Final = ("class", "missing", "merged", "border")
_CODE = {name: code for code, name in enumerate(CAUSES)}
_WRONG_CLASS = [code for name, code in _CODE.items() if name.startswith("wrong_class")]
_PIECES = [_CODE[name] for name in ("split", "duplicate", "merged")]
_LEAST_SHARE = 0.1  # of the segment that a piece of it covers
_LEAST_COVERAGE = 0.75
_TO_SIGMA: Final = 1.4826  # median absolute deviation → standard deviation of a normal distribution
_LEAST_DEVIATION = 0.02
_TYPICAL_Z = 4.0

_Floats = npt.NDArray[np.float64]


class LabelError(NamedTuple):
    """A suspect: position of its image, index in ``rows`` of that image, one of :data:`KINDS`, how suspicious, 0 to 1.

    The segment is the ground truth's, of kind ``missing`` the prediction's. ``predicted``: index of the category that
    the prediction has there.
    """

    image: int
    row: int
    kind: str
    suspicion: float
    predicted: int


class _Segments(NamedTuple):
    """All segments (R): their table, image, row of their partner in the other map (-1: none), confidence (of the
    prediction, NaN of the ground truth's), IoU with the partner.
    """

    rows: npt.NDArray[np.void]
    image: npt.NDArray[np.int64]
    partner: npt.NDArray[np.int64]
    confidence: _Floats
    iou: _Floats


def find_label_errors(errors: PanopticErrors, most: int | None = None) -> list[LabelError]:
    """Suspected errors of the ground truth, the most suspicious first.

    Args:
        errors: an evaluation; scores of its predictions help, where there are none the classes' precision stands in.
        most: of the list, None for all.
    """
    segments = _segments(errors)
    found: dict[int, tuple[float, str, int]] = {}
    isthing = [errors.categories.isthing(id_) for id_ in errors.categories.dataset_ids]
    for finder in (_classes, _missing, _merged, _borders):
        for row, suspicion, kind, predicted in finder(segments):
            if kind == "merged" and not isthing[predicted]:  # stuff is one segment however many parts it has
                continue
            if suspicion > found.get(row, (0.0,))[0]:
                found[row] = (suspicion, kind, predicted)
    order = sorted(found, key=lambda row: (-found[row][0], row))[:most]
    first = np.searchsorted(segments.image, segments.image[order])
    return [
        LabelError(int(segments.image[row]), row - int(start), kind, suspicion, predicted)
        for row, start in zip(order, first, strict=True)
        for suspicion, kind, predicted in [found[row]]
    ]


def _segments(errors: PanopticErrors) -> _Segments:
    rows = errors.rows
    image = np.repeat(np.arange(len(errors.images)), [len(one.rows) for one in errors.images])
    keys = (image * 2 + rows["predicted"]) * 2**24 + rows["id"]
    order = np.argsort(keys, kind="stable")
    wanted = (image * 2 + ~rows["predicted"]) * 2**24 + rows["other"]
    place = np.minimum(np.searchsorted(keys[order], wanted), max(len(rows) - 1, 0))
    known = rows["union"] > 0
    partner = np.where(known & (keys[order[place]] == wanted), order[place], -1) if len(rows) else np.empty(0, int)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(known, rows["intersection"] / rows["union"], 0.0)
    return _Segments(rows, image, partner, _confidence(rows, len(errors.categories)), iou)


def _confidence(rows: npt.NDArray[np.void], num_categories: int) -> _Floats:
    """Geometric mean of the score and the precision of the class; only the latter where there is no score."""
    predicted, matched = rows["predicted"], rows["cause"] == _CODE["matched"]
    counted = predicted & (rows["cause"] != _CODE["ignored"])
    hits, number = (
        np.bincount(rows["category"][chosen], minlength=num_categories) for chosen in (counted & matched, counted)
    )
    precision = ((hits + 1) / (number + 2))[rows["category"]]
    score = np.where(np.isnan(rows["score"]), precision, rows["score"].clip(0, 1))
    return np.where(predicted, np.sqrt(score * precision), np.nan)


_Suspects = Iterator[tuple[int, float, str, int]]


def _classes(segments: _Segments) -> _Suspects:
    rows, partner = segments.rows, segments.partner
    chosen = np.flatnonzero(~rows["predicted"] & np.isin(rows["cause"], _WRONG_CLASS) & (partner >= 0))
    of, to = rows["category"][chosen], rows["category"][partner[chosen]]
    seen = np.bincount(rows["category"][~rows["predicted"]], minlength=int(rows["category"].max(initial=0)) + 1)
    _, pair, times = np.unique(of.astype(np.int64) * 2**20 + to, return_inverse=True, return_counts=True)
    rarity = 1 - (times[pair.reshape(-1)] - 1) / np.maximum(seen[of], 1)
    suspicion = segments.confidence[partner[chosen]] * segments.iou[chosen] * rarity
    yield from zip(chosen.tolist(), suspicion.tolist(), ["class"] * len(chosen), to.tolist(), strict=False)


def _missing(segments: _Segments) -> _Suspects:
    rows = segments.rows
    ignored = rows["predicted"] & (rows["cause"] == _CODE["ignored"])
    crowds = {(i, c) for i, c in _pairs(segments, rows["crowd"])}  # those forgive predictions, nothing is missing
    for kind in (ignored, rows["predicted"] & (rows["cause"] == _CODE["hallucinated"])):
        rarity = _rarity(rows, kind)
        for row in np.flatnonzero(kind).tolist():
            category = int(rows["category"][row])
            if (int(segments.image[row]), category) not in crowds:
                yield row, float(segments.confidence[row] * rarity[category]), "missing", category


def _pairs(segments: _Segments, chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    yield from zip(segments.image[chosen].tolist(), segments.rows["category"][chosen].tolist(), strict=True)


def _rarity(rows: npt.NDArray[np.void], chosen: npt.NDArray[np.bool_]) -> _Floats:
    """By category: 1 minus the share of its predictions that are so."""
    size = int(rows["category"].max(initial=0)) + 1
    times, number = (np.bincount(rows["category"][one], minlength=size) for one in (chosen, rows["predicted"]))
    return np.asarray(1 - np.maximum(times - 1, 0) / np.maximum(number, 1))


def _merged(segments: _Segments) -> _Suspects:
    rows, partner = segments.rows, segments.partner
    share = np.zeros(len(rows))
    known = partner >= 0
    share[known] = rows["intersection"][known] / np.maximum(rows["pixels"][partner[known]], 1)
    same = known & (rows["category"] == rows["category"][partner])
    is_piece = rows["predicted"] & same & np.isin(rows["cause"], [*_PIECES, _CODE["matched"], _CODE["boundary"]])
    pieces = np.flatnonzero(is_piece & (share >= _LEAST_SHARE))
    whole = partner[pieces]
    size = len(rows)
    number, covered = np.bincount(whole, minlength=size), np.bincount(whole, share[pieces], minlength=size)
    lowest = np.full(size, np.inf)
    np.minimum.at(lowest, whole, segments.confidence[pieces])
    for row in np.flatnonzero((number >= 2) & (covered >= _LEAST_COVERAGE)).tolist():
        yield row, float(lowest[row] * min(covered[row], 1.0)), "merged", int(rows["category"][row])


def _borders(segments: _Segments) -> _Suspects:
    """What stands out by IoU, and by how far the edges are apart: (1 - IoU) times the side, about.

    Here the void that a prediction covers counts against it: a border that was drawn too far inside leaves some.
    """
    rows, partner = segments.rows, segments.partner
    fits = np.isin(rows["cause"], [_CODE["matched"], _CODE["boundary"]])
    chosen = np.flatnonzero(~rows["predicted"] & fits & (partner >= 0))
    loss = 1 - rows["intersection"][chosen] / (rows["union"][chosen] + rows["on_void"][partner[chosen]])
    apart = loss * np.sqrt(rows["pixels"][chosen])
    category = rows["category"][chosen]
    for one in np.unique(category).tolist():
        inside = category == one
        z = np.minimum(_outlying(loss[inside], _LEAST_DEVIATION), _outlying(apart[inside], _LEAST_DEVIATION))
        confidence = segments.confidence[partner[chosen[inside]]]
        suspicion = confidence * (1 - np.exp(-z.clip(0) / _TYPICAL_Z))
        yield from ((row, s, "border", one) for row, s in zip(chosen[inside].tolist(), suspicion.tolist(), strict=True))


def _outlying(values: _Floats, least: float) -> _Floats:
    """Robust z: by how many deviations a value is above the median."""
    median = np.median(values)
    deviation = _TO_SIGMA * float(np.median(np.abs(values - median)))
    return np.asarray((values - median) / max(deviation, least))
