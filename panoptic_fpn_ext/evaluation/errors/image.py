"""The errors of one image as a table of its segments: what everything else here is made from.

Shapes: N segments, the ground truth's and then the prediction's, each by ascending id.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..panoptic_quality import Comparison
from ..segments import NO_CATEGORY, SegmentMap, sum_by
from .causes import MATCHED, NONE, Causes, find_causes
from .shapes import Edges, boxes, coordinates, edge_band, find_edges, join_boxes

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
PQ counts them) are with it, 0 for none. ``near_edge``: of a match, px that only one of the two has and that are near an
edge of the ground truth, else 0. ``touches_thing``: it is a thing beside or above another one. ``bbox``: [x, y, width,
height]. ``on_void``: px of a prediction on void, else 0. ``score``: NaN if none.
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
        ValueError: an area in the ground truth's JSON gives a segment two matches or an IoU above 1.
    """
    _check_areas(gt, compared)
    of_gt, of_pred = find_causes(gt, pred, compared, isthing)
    runs, width = compared.runs.without_empty(), gt.shape[1]
    starts = coordinates(runs.starts, width)
    edges = find_edges(gt, starts if gt.starts is runs.starts else coordinates(gt.starts, width))
    pair_of_run = runs.pair_of_run(compared.gt, compared.pred)
    sides = boxes(pair_of_run, len(compared.gt), starts, gt.shape)
    near = sum_by(pair_of_run, edge_band(edges, gt.shape).run_sums(starts), len(compared.gt))

    in_gt, in_pred = gt.listed_categories != NO_CATEGORY, pred.categories != NO_CATEGORY
    rows = np.zeros(np.count_nonzero(in_gt) + np.count_nonzero(in_pred), SEGMENT_DTYPE)
    rows_gt, rows_pred = rows[: np.count_nonzero(in_gt)], rows[np.count_nonzero(in_gt) :]
    rows_pred["predicted"] = True
    rows_gt["touches_thing"] = _touches_thing(gt, edges, isthing)[in_gt]
    rows_gt["bbox"] = join_boxes(sides, compared.gt, len(in_gt))[in_gt]
    rows_pred["bbox"] = join_boxes(sides, compared.pred, len(in_pred))[in_pred]
    rows_pred["on_void"] = compared.on_void[in_pred]
    near_edge = _near_edge(gt, compared, near)
    of_pair = compared.pixels, compared.union
    others_gt = np.append(pred.ids, 0)[compared.pred], pred.categories[compared.pred], *of_pair
    others_pred = np.append(gt.ids, 0)[compared.gt], gt.categories[compared.gt], *of_pair
    _fill(rows_gt, gt, in_gt, of_gt, others_gt, near_edge)
    _fill(rows_pred, pred, in_pred, of_pred, others_pred, near_edge)
    return rows


def _check_areas(gt: SegmentMap, compared: Comparison) -> None:
    hit = compared.gt[compared.hit]
    iou = compared.iou[compared.hit]
    if (len(hit) > 1 and (hit[1:] == hit[:-1]).any()) or (len(iou) and iou.max() > 1):
        label = int(hit[iou > 1][0]) if iou.max() > 1 else int(hit[1:][hit[1:] == hit[:-1]][0])
        raise ValueError(
            f"ground truth: the area of segment {gt.ids[label]} is {gt.areas[label]:g} px in the JSON, and its mask "
            f"has {gt.pixels[label]:g}, so that its losses cannot be told; correct the JSON"
        )


def _fill(
    rows: npt.NDArray[np.void],
    segments: SegmentMap,
    inside: npt.NDArray[np.bool_],
    causes: Causes,
    others: Sequence[npt.NDArray[Any]],
    near_edge: npt.NDArray[np.float64],
) -> None:
    """Write what both maps' segments have; ``inside``: labels that have a row; ``others``: columns by pair."""
    code, pair = causes.code[inside], causes.pair[inside]
    rows["id"] = segments.ids[inside[:-1]]
    rows["category"], rows["pixels"] = segments.listed_categories[inside], segments.pixels[inside]
    rows["crowd"] = segments.categories[inside] == NO_CATEGORY
    rows["cause"], rows["score"] = code, np.nan
    known = pair != NONE
    rows["other_category"] = -1
    for name, column in zip(("other", "other_category", "intersection", "union"), others, strict=True):
        rows[name][known] = column[pair[known]]
    matched = code == MATCHED
    rows["near_edge"][matched] = near_edge[pair[matched]]


def _near_edge(gt: SegmentMap, compared: Comparison, near: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By pair: px near an edge that only one of the two segments has; ``near``: those of each pair."""
    in_gt = sum_by(compared.gt, near, len(gt.pixels))
    in_pred = sum_by(compared.pred, near * (compared.gt != 0), compared.runs.width)
    return in_gt[compared.gt] + in_pred[compared.pred] - 2 * near


def _touches_thing(gt: SegmentMap, edges: Edges, isthing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """By label: things beside or above another thing."""
    things = (gt.listed_categories != NO_CATEGORY) & isthing[gt.listed_categories]
    result = np.zeros(len(things), np.bool_)
    for first, second in edges.labels if np.count_nonzero(things) > 1 else ():
        both = things[first] & things[second]
        result[first[both]] = result[second[both]] = True
    return result
