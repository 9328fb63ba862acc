"""The paper's merging procedure on stored inputs, for all settings of its three thresholds at once.

Instances come by descending score, so what a lower score threshold gives goes on where a higher one ends; and stuff
below an area limit only takes its segments away. So one pass over the instances for each overlap threshold, and one
comparison with the ground truth for each of its ends, give every setting.

Shapes: O, S, A overlap thresholds, score thresholds and area limits of a grid, C categories.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..categories import PanopticCategories
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.model_ids import ModelIds
from ..evaluation.panoptic_quality import Comparison, compare_image
from ..evaluation.segments import NO_CATEGORY, SegmentMap, parse_segments
from .stored import CombinerInputs

__all__ = ["Grid", "ThresholdCounts", "combine", "recount", "with_stuff"]


class Grid(NamedTuple):
    """The settings: every overlap threshold with every instance score threshold and every area limit (px)."""

    overlap: tuple[float, ...]
    score: tuple[float, ...]
    area: tuple[float, ...]


@dataclass(eq=False)
class ThresholdCounts:
    """Counts for PQ of each setting, added up image by image in the order of the ground truth.

    ``iou_sum`` float64, ``tp``, ``fp``, ``fn`` int64: (O, S, A, C).
    """

    grid: Grid
    categories: PanopticCategories
    iou_sum: npt.NDArray[np.float64] = field(init=False)
    tp: npt.NDArray[np.int64] = field(init=False)
    fp: npt.NDArray[np.int64] = field(init=False)
    fn: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        shape = (*map(len, self.grid), len(self.categories))
        self.iou_sum = np.zeros(shape)
        self.tp, self.fp, self.fn = (np.zeros(shape, np.int64) for _ in range(3))

    def per_class(self) -> npt.NDArray[np.float64]:
        """PQ in percent of each setting and class, (O, S, A, C); NaN where the class does not occur."""
        with np.errstate(invalid="ignore"):
            return np.asarray(100 * (self.iou_sum / (self.tp + 0.5 * self.fp + 0.5 * self.fn)))

    def pq(self, categories: Collection[int] | None = None) -> npt.NDArray[np.float64]:
        """PQ in percent of each setting over all categories, or over some dataset ids, (O, S, A)."""
        ids = self.categories.dataset_ids
        inside = [index for index, id_ in enumerate(ids) if categories is None or id_ in categories]
        values = self.per_class()[..., inside]
        occurs = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(occurs, values, 0).sum(axis=-1) / occurs.sum(axis=-1))

    def add(
        self, overlap: int, score: int, gt: SegmentMap, pred: SegmentMap, compared: Comparison, things: int
    ) -> None:
        """Count one image for one overlap and score threshold and all area limits.

        Args:
            overlap, score: indices in the grid.
            gt, pred: the maps; the prediction's with all stuff, ids from ``things`` + 1 on.
            compared: ``compare_image`` of them.
            things: number of thing segments.
        """
        is_stuff = np.append(pred.ids > things, False) & (pred.categories != NO_CATEGORY)
        hit_gt, hit_pred, iou = (column[compared.hit] for column in (compared.gt, compared.pred, compared.iou))
        for area, limit in enumerate(self.grid.area):
            dropped = is_stuff & (pred.pixels < limit)
            at, lost = (overlap, score, area), dropped[hit_pred]
            np.add.at(self.iou_sum[at], gt.categories[hit_gt[~lost]], iou[~lost])
            np.add.at(self.tp[at], gt.categories[hit_gt[~lost]], 1)
            np.add.at(self.fn[at], gt.categories[hit_gt[lost]], 1)
            np.add.at(self.fn[at], gt.categories[compared.missed], 1)
            np.add.at(self.fp[at], pred.categories[compared.wrong & ~dropped], 1)


def combine(inputs: CombinerInputs, overlap: float, prefixes: Collection[int]) -> Iterator[tuple[int, Any, list[int]]]:
    """Paint the first instances for each of several numbers of them, as `HeuristicCombiner` does.

    Args:
        inputs: of one image.
        overlap: the overlap threshold.
        prefixes: numbers of instances.

    Yields:
        For each number, ascending: it, the map int32 (H, W) of instances, ids 1 … T, which changes afterwards, and the
        T instances that have a segment, as indices.
    """
    panoptic = np.zeros(inputs.labels.shape, np.int32)
    accepted: list[int] = []
    done = 0
    for number in sorted(set(prefixes)):
        for k in range(done, number):
            top, bottom, left, right = inputs.windows[k]
            window = panoptic[top:bottom, left:right]
            free = inputs.masks[k] & (window == 0)
            area, free_area = np.count_nonzero(inputs.masks[k]), np.count_nonzero(free)
            if free_area and (area - free_area) / area <= overlap:
                accepted.append(k)
                window[free] = len(accepted)
        done = number
        yield number, panoptic, accepted


def with_stuff(
    inputs: CombinerInputs, panoptic: npt.NDArray[np.int32], things: int, thing_sem_seg_ids: Collection[int]
) -> npt.NDArray[np.int32]:
    """A map (H, W) of ``things`` instances with all stuff on what is free: its semantic id + ``things`` + 1."""
    stuff_map = inputs.labels.astype(np.int32) + (things + 1)
    stuff_map[np.isin(inputs.labels, [*thing_sem_seg_ids])] = 0
    return np.where(panoptic > 0, panoptic, stuff_map)


def recount(
    counts: ThresholdCounts,
    inputs: CombinerInputs,
    truth: GroundTruth,
    position: int,
    ids: ModelIds,
    thing_sem_seg_ids: Collection[int],
) -> None:
    """Add one image to the counts of every setting.

    Args:
        counts: to add to.
        inputs: what the combiner was given.
        truth: the ground truth; ``position``: of the image in it.
        ids: of the dataset.
        thing_sem_seg_ids: semantic ids that stand for things: their pixels become void.
    """
    prefixes = [int(np.count_nonzero(inputs.scores >= score)) for score in counts.grid.score]
    compared: dict[tuple[int, ...], tuple[SegmentMap, SegmentMap, Comparison]] = {}
    for overlap, threshold in enumerate(counts.grid.overlap):
        for number, panoptic, accepted in combine(inputs, threshold, prefixes):
            key = tuple(accepted)
            if key not in compared:  # thresholds that accept the same give the same map
                compared[key] = _compare(inputs, panoptic, accepted, truth, position, ids, thing_sem_seg_ids)
            for score in (index for index, prefix in enumerate(prefixes) if prefix == number):
                counts.add(overlap, score, *compared[key], len(accepted))


def _compare(
    inputs: CombinerInputs,
    panoptic: npt.NDArray[np.int32],
    accepted: list[int],
    truth: GroundTruth,
    position: int,
    ids: ModelIds,
    thing_sem_seg_ids: Collection[int],
) -> tuple[SegmentMap, SegmentMap, Comparison]:
    full = with_stuff(inputs, panoptic, len(accepted), thing_sem_seg_ids)
    segments: list[dict[str, Any]] = [
        {"id": index, "category_id": int(inputs.classes[k]), "isthing": True} for index, k in enumerate(accepted, 1)
    ]
    for id_ in np.unique(full[full > len(accepted)]).tolist():
        segments.append({"id": id_, "category_id": id_ - len(accepted) - 1, "isthing": False})
    pred_ids, listed, problems = ids.to_dataset(full, segments)
    if problems:
        raise ValueError(f"image {truth.image_ids[position]!r}: prediction: {'; '.join(problems)}")
    parsed, problems = parse_segments(listed, truth.category_index, predicted=True)
    if problems:
        raise ValueError(f"image {truth.image_ids[position]!r}: prediction: {'; '.join(problems)}")
    gt, pred = truth.compare(position, pred_ids, parsed)
    return gt, pred, compare_image(gt, pred)
