"""Panoptic Quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), bit for bit as panopticapi counts it.

This module is pure: arrays and dicts in, numbers out. Shapes: H, W image size, C categories, U known ids of a map
(see ``segments.py`` for *label*).

The rules, as in panopticapi's ``pq_compute_single_core``:

* A predicted and a ground-truth segment of one category match iff IoU > 0.5, strictly; crowd segments match nothing.
* union = pixels of the prediction + JSON area of the ground truth - intersection - prediction's pixels on void.
* An unmatched ground-truth segment is a false negative, unless it is crowd.
* An unmatched prediction is a false positive, unless more than half of it is void or crowd of its category; of several
  crowd segments of one category only the last in JSON order counts.
* Pixels of a ground-truth id that the JSON does not list are neither void nor a segment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..categories import PanopticCategories
from ..coco_json import segment_rows
from .overlaps import CommonRuns, common_runs
from .segments import NO_CATEGORY, SegmentMap, as_segment_maps, check_sizes, parse_segments, sum_by

__all__ = [
    "MATCH_DTYPE",
    "Comparison",
    "ImageCounts",
    "PQCounts",
    "compare_image",
    "count_image",
    "count_panoptic_quality",
]

MATCH_DTYPE = np.dtype([("category", np.int32), ("iou", np.float64)])
"""One true positive: index of its category, and its IoU."""


class ImageCounts(NamedTuple):
    """What one image adds: category indices of each match, false positive and false negative.

    ``matches`` (``MATCH_DTYPE``) is ordered by ground-truth id, then predicted id: the order in which panopticapi sums.
    """

    matches: npt.NDArray[np.void]
    false_positives: npt.NDArray[np.int64]
    false_negatives: npt.NDArray[np.int64]
    num_wrong_areas: int


class Comparison(NamedTuple):
    """Two maps of one image side by side: by pair of labels that share pixels (P), and by label.

    ``gt``, ``pred`` intp (P,): the labels, ordered by ``gt``, then ``pred``; ``pixels``, ``union``, ``iou`` float64
    (P,), whatever the categories are; ``hit`` bool (P,): matches. ``on_void`` float64 by predicted label. ``missed``,
    ``wrong``: bool by label, false negatives and false positives.
    """

    counts: ImageCounts
    runs: CommonRuns
    gt: npt.NDArray[np.intp]
    pred: npt.NDArray[np.intp]
    pixels: npt.NDArray[np.float64]
    union: npt.NDArray[np.float64]
    iou: npt.NDArray[np.float64]
    hit: npt.NDArray[np.bool_]
    on_void: npt.NDArray[np.float64]
    missed: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PQCounts:
    """Counts by category, in the order of ``categories.dataset_ids``; ``a + b`` is what a's images and then b's give.

    ``tp``, ``fp``, ``fn``: int64 (C,). ``matches``: the IoU of each true positive, 12 bytes each, in the order of the
    images. They are kept because a float sum depends on its order: with them any grouping of ``+`` gives the bits of
    panopticapi's one loop over all images. ``num_wrong_areas``: ground-truth segments with a JSON area other than
    their pixels.
    """

    categories: PanopticCategories
    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]
    matches: tuple[npt.NDArray[np.void], ...] = ()
    num_wrong_areas: int = 0

    @classmethod
    def zero(cls, categories: PanopticCategories) -> "PQCounts":
        """No image yet: the start of ``sum(counts, PQCounts.zero(categories))``."""
        nothing = np.zeros(len(categories), dtype=np.int64)
        return cls(categories, nothing, nothing, nothing)

    @classmethod
    def from_image(cls, categories: PanopticCategories, counts: ImageCounts) -> "PQCounts":
        """Counts of one image, or of several whose lists were joined in order."""
        size = len(categories)
        return cls(
            categories=categories,
            tp=np.bincount(counts.matches["category"], minlength=size),
            fp=np.bincount(counts.false_positives, minlength=size),
            fn=np.bincount(counts.false_negatives, minlength=size),
            matches=(counts.matches,),
            num_wrong_areas=counts.num_wrong_areas,
        )

    @property
    def iou_sum(self) -> npt.NDArray[np.float64]:
        """Sum of the IoUs of each category's true positives, float64 (C,), added one by one in order."""
        matches = np.concatenate([np.empty(0, MATCH_DTYPE), *self.matches])
        return sum_by(matches["category"], matches["iou"], len(self.categories))

    def __add__(self, other: "PQCounts") -> "PQCounts":
        """Counts of both, ``self`` first; ``ValueError`` when their categories differ."""
        if not isinstance(other, PQCounts):
            return NotImplemented
        if self.categories is not other.categories and self.categories != other.categories:
            raise ValueError(f"Counts of different categories cannot be added: {self.categories}, {other.categories}.")
        return PQCounts(
            categories=self.categories,
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            fn=self.fn + other.fn,
            matches=_join(self.matches, other.matches),
            num_wrong_areas=self.num_wrong_areas + other.num_wrong_areas,
        )

    def summarize(self) -> dict[str, Any]:
        """panopticapi's result: fractions, averaged over the categories that occur.

        Returns:
            ``"All"``, ``"Things"``, ``"Stuff"``: ``{"pq", "sq", "rq", "n"}``; n is the number of categories that occur,
            and where it is 0 the others are NaN (panopticapi divides by zero there). ``"per_class"``: dataset id →
            ``{"pq", "sq", "rq"}``, zeros for a category that does not occur.
        """
        per_class = self._per_class()
        occurs = dict(zip(self.categories.dataset_ids, (self.tp + self.fp + self.fn) > 0, strict=True))
        present = {id_: result for id_, result in per_class.items() if occurs[id_]}
        isthing = self.categories.isthing
        return {
            "All": _average(list(present.values())),
            "Things": _average([result for id_, result in present.items() if isthing(id_)]),
            "Stuff": _average([result for id_, result in present.items() if not isthing(id_)]),
            "per_class": per_class,
        }

    def _per_class(self) -> dict[int, dict[str, float]]:
        rows = zip(self.iou_sum.tolist(), self.tp.tolist(), self.fp.tolist(), self.fn.tolist(), strict=True)
        return {id_: _quality(*row) for id_, row in zip(self.categories.dataset_ids, rows, strict=True)}


def _join(
    left: tuple[npt.NDArray[np.void], ...], right: tuple[npt.NDArray[np.void], ...]
) -> tuple[npt.NDArray[np.void], ...]:
    """All chunks in order; short ones are merged, so that summing n images copies n log n matches, not n²."""
    chunks = list(left)
    for chunk in right:
        chunks.append(chunk)
        while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
            chunks[-2:] = [np.concatenate(chunks[-2:])]
    return tuple(chunks)


def _quality(iou_sum: float, tp: int, fp: int, fn: int) -> dict[str, float]:
    if tp + fp + fn == 0:
        return {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    size = tp + 0.5 * fp + 0.5 * fn
    return {"pq": iou_sum / size, "sq": iou_sum / tp if tp else 0.0, "rq": tp / size}


def _average(results: list[dict[str, float]]) -> dict[str, float]:
    n = len(results)
    if n == 0:
        return {"pq": float("nan"), "sq": float("nan"), "rq": float("nan"), "n": 0}
    means = {}
    for key in ("pq", "sq", "rq"):
        total = 0.0
        for result in results:  # sum() of Python ≥ 3.12 compensates its rounding errors: other bits
            total += result[key]
        means[key] = total / n
    return {**means, "n": n}


def count_panoptic_quality(
    gt_map: npt.NDArray[np.integer],
    gt_segments: Sequence[Mapping[str, Any]],
    pred_map: npt.NDArray[np.integer],
    pred_segments: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
) -> PQCounts:
    """Matches, false positives and false negatives of one image, as panopticapi's ``pq_compute_single_core``.

    Args:
        gt_map: integers (H, W), segment ids in [0, 256³), 0 is void.
        gt_segments: ``segments_info`` of the ground truth: ``id``, ``category_id`` (dataset id), ``area`` (px; its
            number of pixels where absent) and ``iscrowd`` (0 where absent).
        pred_map: integers (H, W), segment ids in [0, 256³), 0 is void.
        pred_segments: ``segments_info`` of the prediction: ``id`` and ``category_id`` (dataset id).
        categories: all categories of the dataset.

    Returns:
        Counts to add up over the images, in the order of the ground truth's JSON for panopticapi's bits.

    Raises:
        ValueError: maps of different sizes or not integer (H, W); duplicate ids, ids out of range, unknown categories;
            a predicted id without a pixel, or a pixel of the prediction whose id is neither listed nor 0.
    """
    category_index = {id_: index for index, id_ in enumerate(categories.dataset_ids)}
    gt_parsed, gt_problems = parse_segments(segment_rows(gt_segments, "ground truth"), category_index)
    predicted = segment_rows(pred_segments, "prediction", predicted=True)
    pred_parsed, pred_problems = parse_segments(predicted, category_index, predicted=True)
    problems = [f"ground truth: {p}" for p in gt_problems] + [f"prediction: {p}" for p in pred_problems]
    if problems:
        raise ValueError("; ".join(problems))
    counts = count_image(*as_segment_maps(gt_map, gt_parsed, pred_map, pred_parsed))
    return PQCounts.from_image(categories, counts)


def _check(gt: SegmentMap, pred: SegmentMap) -> None:
    check_sizes(gt.shape, pred.shape)
    problems = []
    if pred.unlisted:
        problems.append(
            f"prediction: ids {pred.unlisted[:5]} have pixels and are not in segments_info; list them there"
        )
    if pred.absent:
        problems.append(f"prediction: ids {pred.absent[:5]} are in segments_info and have no pixel; take them out")
    if problems:
        raise ValueError("; ".join(problems))


def count_image(gt: SegmentMap, pred: SegmentMap) -> ImageCounts:
    """Counts of one image; rules and errors of the maps as :func:`count_panoptic_quality`."""
    return compare_image(gt, pred).counts


def compare_image(gt: SegmentMap, pred: SegmentMap) -> Comparison:
    """:func:`count_image`, and what it is counted from."""
    _check(gt, pred)
    runs = common_runs(gt, pred)
    g, p, pixels = runs.overlaps()
    on_void = sum_by(p, pixels * (g == 0), len(pred.pixels))
    union = pred.pixels[p] + gt.areas[g] - pixels - on_void[p]
    with np.errstate(divide="ignore", invalid="ignore"):  # a wrong JSON area can make the union 0
        iou = pixels / union
    hit = (gt.categories[g] == pred.categories[p]) & (pred.categories[p] != NO_CATEGORY) & (iou > 0.5)
    matches = np.empty(np.count_nonzero(hit), MATCH_DTYPE)
    matches["category"], matches["iou"] = gt.categories[g[hit]], iou[hit]

    on_crowd = sum_by(p, pixels * (gt.crowd_categories[g] == pred.categories[p]), len(pred.pixels))
    missed, wrong = gt.categories != NO_CATEGORY, pred.categories != NO_CATEGORY
    missed[g[hit]] = False
    wrong[p[hit]] = False
    wrong[wrong] = (on_void[wrong] + on_crowd[wrong]) / pred.pixels[wrong] <= 0.5
    counts = ImageCounts(matches, pred.categories[wrong], gt.categories[missed], gt.num_wrong_areas)
    return Comparison(counts, runs, g, p, pixels, union, iou, hit, on_void, missed, wrong)
