"""The errors of images as tables of their segments: what everything else here is made from.

Shapes: N segments, of each image the ground truth's and then the prediction's, each by ascending id; labels and P pairs
as in :mod:`.measured`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..panoptic_quality import Comparison
from ..segments import NO_CATEGORY, SegmentMap, sum_by
from .causes import MATCHED, NONE, Causes, find_causes
from .measured import Joined, Labels, Measured, join, measure
from .shapes import join_boxes

__all__ = ["SEGMENT_DTYPE", "explain_image", "explain_measured"]

SEGMENT_DTYPE: Final = np.dtype(
    [
        ("predicted", np.bool_),
        ("crowd", np.bool_),
        ("touches_thing", np.bool_),
        ("cause", np.uint8),
        ("category", np.int32),
        ("id", np.int32),
        ("other", np.int32),
        ("other_category", np.int32),
        ("bbox", np.int32, 4),
        ("pixels", np.float64),
        ("on_void", np.float64),
        ("intersection", np.float64),
        ("union", np.float64),
        ("near_edge", np.float64),
        ("score", np.float32),
    ]
)
"""One segment of the ground truth or of the prediction (``predicted``), with at least one pixel or a match to miss.

``category``: index, not id. ``cause``: code in ``CAUSES``. ``other``: id of the segment of the other map that shows the
cause or is the match, 0 for none; ``other_category``: its category, -1 for none; ``intersection`` and ``union`` (px, as
PQ counts them) are with it, 0 for none. ``near_edge``: of a match, px that only one of the two has, in runs whose
middle is near an edge of the ground truth, else 0. ``touches_thing``: it is a thing beside or above another one, see
``shapes.py``. ``bbox``: [x, y, width, height]. ``on_void``: px of a prediction on void, else 0. ``score``: NaN if none.
"""


def explain_image(
    gt: SegmentMap, pred: SegmentMap, compared: Comparison, isthing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.void]:
    """The segments of one image with the causes of their errors, ``SEGMENT_DTYPE`` (N,).

    Args:
        gt, pred: the maps.
        compared: ``compare_image`` of them.
        isthing: bool by category index.

    Raises:
        ValueError: see ``measure``.
    """
    return explain_measured(join([measure(gt, pred, compared, isthing)]), isthing)[0]


def explain_measured(images: Joined, isthing: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.void]]:
    """Of each image its segments with the causes of their errors, ``SEGMENT_DTYPE`` (N,)."""
    whole = images.tables
    of_gt, of_pred = find_causes(whole, isthing)
    inside = whole.gt.listed != NO_CATEGORY, whole.pred.categories != NO_CATEGORY
    rows_gt, rows_pred = (np.zeros(np.count_nonzero(chosen), SEGMENT_DTYPE) for chosen in inside)
    rows_gt["touches_thing"] = whole.touches[inside[0]]
    rows_pred["predicted"], rows_pred["on_void"] = True, whole.on_void[inside[1]]
    for rows, chosen, labels in zip((rows_gt, rows_pred), inside, (whole.first, whole.second), strict=True):
        rows["bbox"] = join_boxes(whole.sides, labels, len(chosen))[chosen]
    near_edge = _near_edge(whole)
    _fill(rows_gt, whole.gt, inside[0], of_gt, _others(whole, whole.pred, whole.second), near_edge)
    _fill(rows_pred, whole.pred, inside[1], of_pred, _others(whole, whole.gt, whole.first), near_edge)
    image = np.concatenate([images.image_of_gt[inside[0]], images.image_of_pred[inside[1]]])
    ordered = np.concatenate([rows_gt, rows_pred])[np.argsort(image, kind="stable")]
    return np.split(ordered, np.cumsum(np.bincount(image, minlength=images.number))[:-1])


def _others(whole: Measured, labels: Labels, of_pair: npt.NDArray[np.intp]) -> list[npt.NDArray[Any]]:
    """By pair, of one of its segments: ``other``, ``other_category``, ``intersection`` and ``union``."""
    return [labels.ids[of_pair], labels.categories[of_pair], whole.pixels, whole.union]


def _fill(
    rows: npt.NDArray[np.void],
    labels: Labels,
    inside: npt.NDArray[np.bool_],
    causes: Causes,
    others: Sequence[npt.NDArray[Any]],
    near_edge: npt.NDArray[np.float64],
) -> None:
    """Write what both maps' segments have; ``inside``: labels that have a row; ``others``: columns by pair."""
    code, pair = causes.code[inside], causes.pair[inside]
    rows["id"], rows["category"] = labels.ids[inside], labels.listed[inside]
    rows["pixels"], rows["crowd"] = labels.pixels[inside], labels.categories[inside] == NO_CATEGORY
    rows["cause"], rows["score"] = code, np.nan
    known = pair != NONE
    rows["other_category"] = -1
    for name, column in zip(("other", "other_category", "intersection", "union"), others, strict=True):
        rows[name][known] = column[pair[known]]
    matched = code == MATCHED
    rows["near_edge"][matched] = near_edge[pair[matched]]


def _near_edge(whole: Measured) -> npt.NDArray[np.float64]:
    """By pair: px near an edge that only one of the two segments has."""
    gt, pred, near = whole.first, whole.second, whole.near
    in_gt = sum_by(gt, near, len(whole.gt.pixels))
    in_pred = sum_by(pred, near * (whole.gt.ids[gt] != 0), len(whole.pred.pixels))  # not on void
    return in_gt[gt] + in_pred[pred] - 2 * near
