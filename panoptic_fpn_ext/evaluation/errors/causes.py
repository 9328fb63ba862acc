"""Why a segment has no match: the rules, on the overlaps that the count of PQ is made from.

Shapes: P pairs of labels that share pixels, L labels of a map, of one image or of several (see :mod:`.measured`).

Each unmatched segment that costs PQ gets the first of these causes that holds. IoU is that of PQ, whatever the
categories are; a segment lies *mostly* in another if more than half of its pixels (of a prediction: of those that are
not void) do.

========================  ============================================================================================
wrong_class_*             IoU > 0.5 with an unmatched segment of another category
merged                    one prediction has most of at least two ground-truth segments of its category; it, and these
split                     at least two unmatched predictions lie mostly in one unmatched ground-truth segment of their
                          category and cover most of it together; it, and these
duplicate (predictions)   mostly in, or IoU > 0.3 with, a ground-truth segment of its category that has its match
boundary                  0.3 < IoU ≤ 0.5 with an unmatched segment of its category
wrong_class_*             0.3 < IoU ≤ 0.5 with an unmatched segment of another category
below_*  (ground truth)   what the combiner left out, where that is known, has IoU > 0.5 with it and its category
missed (ground truth)     nothing of these: void or other segments stand there
hallucinated (predictions)  nothing of these: void or other segments of the ground truth stand there
========================  ============================================================================================
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..segments import NO_CATEGORY, sum_by
from .measured import Measured

__all__ = ["CAUSES", "COLUMNS", "IGNORED", "MATCHED", "Causes", "find_causes"]

COLUMNS: Final = (
    "missed",
    "split",
    "merged",
    "wrong_class_things",
    "wrong_class_stuff",
    "wrong_class_thing_stuff",
    "boundary",
    "duplicate",
    "hallucinated",
    "below_score_threshold",
    "below_overlap_threshold",
    "below_area_limit",
    "match_boundary",
    "match_interior",
)
"""Where points of PQ go: the causes of unmatched segments, and the two parts of what matches lose."""

CAUSES: Final = (*COLUMNS[:-2], "matched", "ignored")
"""What a segment has: a cause, its match, or no part in PQ (crowd; predictions mostly on void or crowd)."""

_CODE = {name: code for code, name in enumerate(CAUSES)}
MATCHED, IGNORED = _CODE["matched"], _CODE["ignored"]
NONE: Final = -1

_MATCH, _NEAR, _MOST = 0.5, 0.3, 0.5
_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.integer]


class Causes(NamedTuple):
    """By label (L,), int64: code in :data:`CAUSES`; pair with the segment of the other map that shows it, or -1."""

    code: npt.NDArray[np.int64]
    pair: npt.NDArray[np.int64]


def find_causes(measured: Measured, isthing: _Bools) -> tuple[Causes, Causes]:
    """The causes of all segments of some images, of the ground truth and of the prediction.

    Args:
        measured: the tables of the images.
        isthing: bool by category index.
    """
    gt, pred = measured.gt, measured.pred
    listed = gt.categories[measured.first] != NO_CATEGORY, pred.categories[measured.second] != NO_CATEGORY
    pairs = np.flatnonzero(listed[0] & listed[1])
    pairs = pairs[np.argsort(measured.iou[pairs], kind="stable")]  # of several partners the best has the last word
    rules_gt, rules_pred = _rules(measured, pairs, isthing)
    matched = (measured.hit[pairs], np.full(len(pairs), MATCHED))
    return (
        _first_rule(measured.first[pairs], pairs, gt.open, "missed", [matched, *rules_gt]),
        _first_rule(measured.second[pairs], pairs, pred.open, "hallucinated", [matched, *rules_pred]),
    )


_Rules = list[tuple[_Bools, npt.NDArray[np.int64]]]  # for each pair: whether it holds, and the code of the cause


def _rules(measured: Measured, pairs: _Ints, isthing: _Bools) -> tuple[_Rules, _Rules]:
    """The rules for the ground truth and for the prediction, the first one first."""
    gt, pred = measured.gt, measured.pred
    g, p, pixels, iou = (column[pairs] for column in (measured.first, measured.second, measured.pixels, measured.iou))
    same = gt.categories[g] == pred.categories[p]
    open_g, open_p = gt.open[g], pred.open[p]
    in_g = same & open_p & (pixels > _MOST * (pred.pixels - measured.on_void)[p])
    in_p = same & (pixels > _MOST * gt.pixels[g])
    merged = in_p & (np.bincount(p[in_p], minlength=len(pred.pixels))[p] >= 2)
    pieces, covered = (sum_by(g[in_g], weights[in_g], len(gt.pixels)) for weights in (np.ones(len(g)), pixels))
    split = in_g & open_g & ((pieces >= 2) & (covered > _MOST * gt.pixels))[g]
    near, both_open = (iou > _NEAR) & (iou <= _MATCH), open_g & open_p
    has_match = np.zeros(len(gt.pixels), np.bool_)
    has_match[measured.first[measured.hit]] = True
    others = ~same & both_open
    code = np.full(len(pairs), 0)
    wrong_class = _wrong_class_codes(isthing[gt.categories[g]], isthing[pred.categories[p]])
    first: _Rules = [(others & (iou > _MATCH), wrong_class)]
    last: _Rules = [(same & both_open & near, code + _CODE["boundary"]), (others & near, wrong_class)]
    parts: _Rules = [(merged & open_g, code + _CODE["merged"]), (split, code + _CODE["split"])]
    parts_pred: _Rules = [(merged & open_p, code + _CODE["merged"]), (split, code + _CODE["split"])]
    duplicate = open_p & has_match[g] & (in_g | (same & near))
    return [*first, *parts, *last], [*first, *parts_pred, (duplicate, code + _CODE["duplicate"]), *last]


def _wrong_class_codes(gt_isthing: _Bools, pred_isthing: _Bools) -> npt.NDArray[np.int64]:
    same_kind = np.where(gt_isthing, _CODE["wrong_class_things"], _CODE["wrong_class_stuff"])
    return np.where(gt_isthing == pred_isthing, same_kind, _CODE["wrong_class_thing_stuff"])


def _first_rule(labels: _Ints, pairs: _Ints, open_: _Bools, otherwise: str, rules: _Rules) -> Causes:
    code, pair = np.full(len(open_), IGNORED), np.full(len(open_), NONE)
    code[open_] = _CODE[otherwise]
    for holds, codes in reversed(rules):  # what is written last, stays
        code[labels[holds]], pair[labels[holds]] = codes[holds], pairs[holds]
    return Causes(code, pair)
