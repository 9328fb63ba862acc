"""Causes and costs of single images: the product's, and whether they add up to what PQ lacks."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from oracles_pq import CATEGORIES, Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation.errors import CAUSES, GROUPS, Losses, explain_image
from panoptic_fpn_ext.evaluation.panoptic_quality import compare_image
from panoptic_fpn_ext.evaluation.segments import as_segment_map, as_segment_maps, parse_segments

CAR, PERSON, ROAD, SKY = 7, 3, 200, 21
TABLE = PanopticCategories(CATEGORIES, as_listed=True)
INDEX = {id_: index for index, id_ in enumerate(TABLE.dataset_ids)}
ISTHING = np.array([TABLE.isthing(id_) for id_ in INDEX])


def rows_of(image: Image, common: bool = True) -> npt.NDArray[np.void]:
    """The explanation of an image, of maps with common ids or each with its own."""
    gt, _ = parse_segments(image.gt_segments, INDEX)
    pred, _ = parse_segments(image.pred_segments, INDEX, predicted=True)
    if common:
        maps = as_segment_maps(image.gt_map, gt, image.pred_map, pred)
    else:
        maps = as_segment_map(image.gt_map, gt), as_segment_map(image.pred_map, pred)
    return explain_image(*maps, compare_image(*maps), ISTHING)


def causes_of(rows: npt.NDArray[np.void]) -> tuple[dict[int, str], dict[int, str]]:
    """Id → cause of the ground truth's segments, and of the prediction's."""
    named = [[(int(r["id"]), CAUSES[r["cause"]]) for r in rows if r["predicted"] == side] for side in (False, True)]
    return dict(named[0]), dict(named[1])


def with_crowd(image: Image, causes: tuple[dict[int, str], dict[int, str]]) -> tuple[dict[int, str], dict[int, str]]:
    """Causes of the slow twin, which has nothing on crowd."""
    return {**causes[0], **{s["id"]: "ignored" for s in image.gt_segments if s["iscrowd"]}}, causes[1]


def pq_of(counts: dict[int, tuple[Fraction, int, int, int]], isthing: bool | None) -> Fraction | None:
    """Of all categories, of things or of stuff, in percent; None where there are none."""
    occurring = [
        iou_sum / (tp + Fraction(fp + fn, 2))
        for id_, (iou_sum, tp, fp, fn) in counts.items()
        if tp + fp + fn and isthing in (None, TABLE.isthing(id_))
    ]
    return 100 * sum(occurring, Fraction(0)) / len(occurring) if occurring else None


def assert_costs_sum_up(rows: npt.NDArray[np.void], counts: dict[int, tuple[Fraction, int, int, int]]) -> None:
    """To what PQ lacks, in fractions."""
    losses = Losses.of(TABLE, rows, exact=True)
    for group, isthing in zip(GROUPS, (None, True, False), strict=True):
        pq = pq_of(counts, isthing)
        assert losses.costs(group).sum() == (0 if pq is None else 100 - pq)
