"""The Dynamically Instantiated Network's way of combining (Arnab & Torr, CVPR 2017; Li, Arnab & Torr, ECCV 2018).

Shapes: K detections, D of them that take part, C semantic classes, S stuff classes, L = D + S labels, h, w network
input, H, W output.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances

from ...structures import THINGS_SEM_SEG_ID, PanopticPrediction
from ..postprocessing import PlacedInstances, label_free_pixels, place_instances
from .build import PANOPTIC_COMBINER_REGISTRY
from .dense_crf import DenseCRF
from .din_unary import (
    DEFAULT_WEIGHTS,
    DINWeights,
    LabelScores,
    checked_weights,
    on_input,
    pasted,
    unary_scores,
    without_negligible,
)
from .segments import label_areas, stuff_segments, thing_segments

__all__ = ["DINCombiner"]

_MASK_THRESHOLD = 0.5


@PANOPTIC_COMBINER_REGISTRY.register()
class DINCombiner:
    """One label for each detection and each stuff class; a dense CRF gives every pixel the best one.

    A detection k of class l_k, score s_k, box B_k and mask m_k has the unary term
    −ln Q(l_k)·[w₁·σ(2s_k − 1) inside B_k + w₂ + w₃·m_k] with the semantic probabilities Q. The predicted soft mask m_k
    takes the place of DIN's shape templates. A stuff class is a detection of the whole image with score 1. Then come
    three mean-field steps with the image's colours. Nothing overlaps. Of two detections of one object the worse one
    keeps a rim; as the heuristic, it is dropped where others have more than ``overlap_threshold`` of its mask, and its
    pixels get the best of the other labels.

    Where the semantic head predicts "things as other", Q of a thing class is Q(other) times the class's share of the
    detections' scores: at a pixel, of those whose boxes it lies in; where there are none, of all.

    It works at the size of the network input, whose colours it needs: L·h·w floats three times, and about as much for
    the CRF's grid. From there labels go to output size as logits do.
    """

    needs_image = True

    @configurable
    def __init__(
        self,
        *,
        weights: DINWeights | Sequence[float] = DEFAULT_WEIGHTS,
        stuff_area_threshold: int = 4096,
        instance_score_threshold: float = 0.5,
        thing_sem_seg_ids: Sequence[int] = (THINGS_SEM_SEG_ID,),
        sem_seg_stride: int = 4,
        overlap_threshold: float = 1.0,
        num_steps: int = 3,
        max_vertices: int = 2**20,
    ) -> None:
        """
        Args:
            weights: five, in the order of :class:`DINWeights`.
            stuff_area_threshold: stuff with fewer pixels, at output size, becomes void.
            instance_score_threshold: instances with lower scores are left out.
            thing_sem_seg_ids: semantic ids of the thing classes, in their order, or the one of "other".
            sem_seg_stride: network input pixels per logit.
            overlap_threshold: largest fraction of an instance's mask that other labels may win; with 1 none is dropped.
            num_steps: of the mean field.
            max_vertices: size of the CRF's grid, see :class:`.BilateralGrid`.

        Raises:
            ValueError: weights that are not five numbers of at least 0, the first three not all 0.
        """
        self.weights = checked_weights(weights)
        self.overlap_threshold = overlap_threshold
        self.stuff_area_threshold = stuff_area_threshold
        self.instance_score_threshold = instance_score_threshold
        self.thing_sem_seg_ids = tuple(thing_sem_seg_ids)
        self.sem_seg_stride = sem_seg_stride
        self.num_steps = num_steps
        self.max_vertices = max_vertices

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``cfg.MODEL.PANOPTIC_FPN.COMBINE``."""
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        return {
            "weights": combine.get("DIN_WEIGHTS", DEFAULT_WEIGHTS),
            "overlap_threshold": combine.OVERLAP_THRESH,
            "stuff_area_threshold": combine.STUFF_AREA_LIMIT,
            "instance_score_threshold": combine.INSTANCES_CONFIDENCE_THRESH,
            "thing_sem_seg_ids": combine.get("THING_SEM_SEG_IDS", (THINGS_SEM_SEG_ID,)),
            "sem_seg_stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE,
        }

    @torch.no_grad()
    def __call__(
        self,
        instances: Instances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
        image: torch.Tensor,
    ) -> PanopticPrediction:
        """Merge the raw outputs of one image. The arguments are not changed.

        Args:
            instances: K detections, as for :class:`.HeuristicCombiner`.
            sem_seg_logits: float (C, h', w') at ``sem_seg_stride``, padding included.
            image_size: (h, w) of the network input without padding.
            output_size: (H, W) of the panoptic map.
            image: (3, h, w), the network input in values from 0 to 255, before it is normalised.

        Returns:
            As of :class:`.HeuristicCombiner`.

        Raises:
            ValueError: an image of another size, or a class without a semantic id.
        """
        placed = place_instances(instances, output_size)
        found = self.label_scores(placed, sem_seg_logits, image_size, image, prune=True)
        found = self._without_overlapped(found, placed, image_size)
        num_labels = len(found.scores)
        everywhere = torch.ones(output_size, dtype=torch.bool, device=sem_seg_logits.device)
        if not num_labels:
            return PanopticPrediction(everywhere.int() * 0, [])
        labels = label_free_pixels(found.scores, 1, image_size, everywhere)
        areas = label_areas(labels, num_labels).tolist()
        num_things = len(found.things)
        is_segment = [
            area > 0 and (k < num_things or area >= self.stuff_area_threshold) for k, area in enumerate(areas)
        ]
        ids = [sum(is_segment[: k + 1]) * kept for k, kept in enumerate(is_segment)]
        panoptic_seg = torch.tensor(ids, dtype=torch.int32, device=labels.device)[labels.int()]
        things = [row for row, kept in zip(found.things, is_segment, strict=False) if kept]
        areas_of, ids_of = [0] * len(sem_seg_logits), [0] * len(sem_seg_logits)
        for label, area, i in zip(found.stuff, areas[num_things:], ids[num_things:], strict=True):
            areas_of[label], ids_of[label] = area, i
        segments = [*thing_segments(placed.placement, things), *stuff_segments(areas_of, ids_of)]
        return PanopticPrediction(panoptic_seg, segments)

    def label_scores(
        self,
        instances: PlacedInstances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        image: torch.Tensor,
        prune: bool = False,
    ) -> LabelScores:
        """Labels of an image and what the CRF makes of them; differentiable in masks, logits and ``weights``.

        Args:
            instances: from :func:`.place_instances`.
            sem_seg_logits, image_size, image: as for a call.
            prune: leave out labels that are negligible everywhere.
        """
        _check_image(image, image_size)
        unary = self.unary_scores(instances, sem_seg_logits, image_size)
        if prune:
            unary = without_negligible(unary)
        if not len(unary.scores):
            return unary
        crf = DenseCRF(image.to(unary.scores.device), max_vertices=self.max_vertices)
        spatial, bilateral = self.weights.spatial, self.weights.bilateral
        return unary._replace(scores=crf.mean_field(unary.scores, spatial, bilateral, self.num_steps))

    def unary_scores(
        self, instances: PlacedInstances, sem_seg_logits: torch.Tensor, image_size: tuple[int, int]
    ) -> LabelScores:
        """−U of all labels. Arguments as of :meth:`label_scores`."""
        return unary_scores(
            instances,
            sem_seg_logits,
            image_size,
            weights=self.weights,
            thing_sem_seg_ids=self.thing_sem_seg_ids,
            sem_seg_stride=self.sem_seg_stride,
            instance_score_threshold=self.instance_score_threshold,
        )

    def _without_overlapped(
        self, found: LabelScores, instances: PlacedInstances, image_size: tuple[int, int]
    ) -> LabelScores:
        """Without detections that win too little of their masks, at the size of the network input.

        The worst is judged first: what it has goes to the others before they are. ``found.scores`` are changed.
        """
        if self.overlap_threshold >= 1 or not found.things:
            return found
        scores, placement = found.scores, instances.placement
        best, boxes = scores.argmax(dim=0), on_input(instances, image_size).boxes
        kept = []
        for n, k in reversed(list(enumerate(found.things))):
            row = placement.rows[k]
            window, probs = pasted(instances.pred_masks[row, 0], boxes[row], image_size)
            mask = probs >= _MASK_THRESHOLD
            lost = mask & (best[window] != n)
            if lost.count_nonzero() <= self.overlap_threshold * mask.count_nonzero():
                kept.append(n)
                continue
            scores[n] = -math.inf
            has = best == n
            best[has] = scores[:, has].argmax(dim=0)
        kept.reverse()
        rows = [*kept, *range(len(found.things), len(scores))]
        return LabelScores(scores[rows], [found.things[n] for n in kept], found.stuff)


def _check_image(image: torch.Tensor, image_size: tuple[int, int]) -> None:
    if image.shape != (3, *image_size):
        raise ValueError(
            f"DINCombiner needs the network input of shape {(3, *image_size)}, without padding, got an image of shape "
            f"{tuple(image.shape)}."
        )
