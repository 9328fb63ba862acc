"""The errors of one image as a table of its segments: what everything else here is made from.

Shapes: N segments, the ground truth's and then the prediction's, each by ascending id.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from ..panoptic_quality import Comparison
from ..segments import NO_CATEGORY, SegmentMap, sum_by
from .causes import MATCHED, NONE, Causes, find_causes
from .shapes import boxes, edge_band, label_map, neighbours, run_sums

__all__ = ["SEGMENT_DTYPE", "explain_image"]

SEGMENT_DTYPE: Final = np.dtype(
    [
        ("predicted", np.bool_),
        ("crowd", np.bool_),
        ("touches_thing", np.bool_),
        ("cause", np.uint8),
        ("category", np.int32),
        ("id", np.int32),
        ("other", np.int32),
        ("bbox", np.int32, 4),
        ("pixels", np.float64),
        ("intersection", np.float64),
        ("union", np.float64),
        ("near_edge", np.float64),
        ("score", np.float32),
    ]
)
"""One segment of the ground truth or of the prediction (``predicted``), with at least one pixel or a match to miss.

``category``: index, not id. ``cause``: code in ``CAUSES``. ``other``: id of the segment of the other map that shows the
cause or is the match, 0 for none; ``intersection`` and ``union`` (px, as PQ counts them) are with it, 0 for none.
``near_edge``: of a match, px that only one of the two has and that are near an edge of the ground truth, else 0.
``touches_thing``: it is a thing beside or above another one. ``bbox``: [x, y, width, height]. ``score``: NaN if none.
"""


def explain_image(
    gt: SegmentMap, pred: SegmentMap, compared: Comparison, isthing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.void]:
    """The segments of one image with the causes of their errors, ``SEGMENT_DTYPE`` (N,).

    Args:
        gt, pred: the maps.
        compared: ``compare_image`` of them.
        isthing: bool by category index.
    """
    of_gt, of_pred = find_causes(gt, pred, compared, isthing)
    labels = label_map(gt)
    rows_gt = _rows(gt, compared, of_gt, np.append(pred.ids, 0)[compared.pred])
    rows_pred = _rows(pred, compared, of_pred, np.append(gt.ids, 0)[compared.gt])
    rows_pred["predicted"] = True
    near_edge = _near_edge(gt, compared, edge_band(labels))
    for rows, causes in ((rows_gt, of_gt), (rows_pred, of_pred)):
        matched = causes.code == MATCHED
        rows["near_edge"][matched] = near_edge[causes.pair[matched]]
    rows_gt["touches_thing"] = _touches_thing(gt, labels, isthing)
    return np.concatenate([rows_gt[gt.listed_categories != NO_CATEGORY], rows_pred[pred.categories != NO_CATEGORY]])


def _rows(
    segments: SegmentMap, compared: Comparison, causes: Causes, others: npt.NDArray[np.int64]
) -> npt.NDArray[np.void]:
    """By label (U + 1); ``others``: ids in the other map, by pair."""
    rows = np.zeros(len(segments.pixels), SEGMENT_DTYPE)
    rows["id"][:-1] = segments.ids
    rows["category"], rows["pixels"] = segments.listed_categories, segments.pixels
    rows["crowd"] = (segments.categories == NO_CATEGORY) & (segments.listed_categories != NO_CATEGORY)
    rows["bbox"], rows["cause"], rows["score"] = boxes(segments), causes.code, np.nan
    known = causes.pair != NONE
    pairs = causes.pair[known]
    for name, column in (("other", others), ("intersection", compared.pixels), ("union", compared.union)):
        rows[name][known] = column[pairs]
    return rows


def _near_edge(gt: SegmentMap, compared: Comparison, band: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """By pair: px near an edge that only one of the two segments has; void is nobody's."""
    runs = compared.runs
    in_pair = runs.sums(compared.gt, compared.pred, run_sums(band, runs.starts))
    in_gt = sum_by(compared.gt, in_pair, len(gt.pixels))
    in_pred = sum_by(compared.pred, in_pair * (compared.gt != 0), runs.width)
    return in_gt[compared.gt] + in_pred[compared.pred] - 2 * in_pair


def _touches_thing(
    gt: SegmentMap, labels: npt.NDArray[np.unsignedinteger], isthing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """By label: things that stand beside another thing."""
    things = (gt.listed_categories != NO_CATEGORY) & isthing[gt.listed_categories]
    pairs = neighbours(labels)
    result = np.zeros(len(things), np.bool_)
    result[pairs[things[pairs].all(axis=1)]] = True
    return result
