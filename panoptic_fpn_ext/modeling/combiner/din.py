"""The Dynamically Instantiated Network's way of combining (Arnab & Torr, CVPR 2017; Li, Arnab & Torr, ECCV 2018).

Shapes: K detections, D of them that take part, C semantic classes, S stuff classes, L = D + S labels, h, w network
input, H, W output.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances

from ...structures import THINGS_SEM_SEG_ID, PanopticPrediction
from ..postprocessing import (
    PlacedInstances,
    Placement,
    Window,
    label_free_pixels,
    paste_probs,
    paste_windows,
    place_instances,
    upsample_sem_seg_logits,
)
from .build import PANOPTIC_COMBINER_REGISTRY
from .dense_crf import DenseCRF
from .segments import candidate_rows, label_areas, stuff_segments, thing_segments

__all__ = ["DINCombiner", "DINWeights", "LabelScores", "checked_weights"]

# A label that is less likely than the best one by this factor, everywhere, changes no marginal by more, and never wins.
_NEGLIGIBLE = 1e-6
_MASK_THRESHOLD = 0.5

Weight = float | torch.Tensor


class DINWeights(NamedTuple):
    """What is learned: w₁, w₂ and w₃ of the unary terms, and the weights of the CRF's two kernels."""

    box: Weight = 1.0
    everywhere: Weight = 0.1
    shape: Weight = 1.0
    spatial: Weight = 3.0
    bilateral: Weight = 4.0


DEFAULT_WEIGHTS = DINWeights()


class LabelScores(NamedTuple):
    """Labels of an image and how well they fit its pixels.

    Attributes:
        scores: float32 (L, h, w), −U or what the CRF makes of it: logarithms of probabilities up to a constant.
        things: D positions among the detections whose box is not empty at output size, best score first.
        stuff: semantic ids of the other labels, ascending.
    """

    scores: torch.Tensor
    things: list[int]
    stuff: list[int]


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
            unary = _without_negligible(unary)
        if not len(unary.scores):
            return unary
        crf = DenseCRF(image.to(unary.scores.device), max_vertices=self.max_vertices)
        spatial, bilateral = self.weights.spatial, self.weights.bilateral
        return unary._replace(scores=crf.mean_field(unary.scores, spatial, bilateral, self.num_steps))

    def unary_scores(
        self, instances: PlacedInstances, sem_seg_logits: torch.Tensor, image_size: tuple[int, int]
    ) -> LabelScores:
        """−U of all labels. Arguments as of :meth:`label_scores`."""
        logits = upsample_sem_seg_logits(sem_seg_logits, self.sem_seg_stride, image_size, image_size)
        log_probs = logits.log_softmax(dim=0)
        placement = instances.placement
        things = candidate_rows(placement.scores, self.instance_score_threshold)
        stuff = [label for label in range(len(log_probs)) if label not in self.thing_sem_seg_ids]
        classes, scores = [placement.classes[k] for k in things], [placement.scores[k] for k in things]
        boxes = _on_input(instances, image_size).boxes[[placement.rows[k] for k in things]]
        inside = [_inside(box, image_size) for box in boxes]
        log_shares = self._log_shares(classes, scores, inside)
        unary = [
            log_probs[self._semantic_id(classes[n])]
            + log_shares[n]
            + self._agreement(inside[n], instances.pred_masks[placement.rows[k], 0], boxes[n], scores[n])
            for n, k in enumerate(things)
        ]
        w = self.weights
        whole_image = torch.as_tensor(w.box * _sigmoid(1.0) + w.everywhere + w.shape).log()
        unary += [log_probs[label] + whole_image for label in stuff]
        return LabelScores(torch.stack(unary) if unary else log_probs[:0], things, stuff)

    def _log_shares(
        self, classes: Sequence[int], scores: Sequence[float], inside: Sequence[torch.Tensor]
    ) -> list[torch.Tensor | float]:
        """Of each detection, the logarithm of what Q(other) is multiplied by; 0 where things have Q of their own."""
        if len(self.thing_sem_seg_ids) != 1 or not classes:
            return [0.0] * len(classes)
        tiny = torch.finfo(torch.float32).tiny
        local = {c: torch.zeros_like(inside[0], dtype=torch.float32) for c in set(classes)}
        whole = dict.fromkeys(local, 0.0)
        for c, score, box in zip(classes, scores, inside, strict=True):
            local[c] += score * box
            whole[c] += score
        at_pixel, in_image = torch.stack(list(local.values())).sum(dim=0), max(sum(scores), tiny)
        log_share = {
            c: torch.where(at_pixel > 0, local[c] / at_pixel, whole[c] / in_image).clamp_(min=tiny).log_()
            for c in local
        }
        return [log_share[c] for c in classes]

    def _semantic_id(self, thing_class: int) -> int:
        if len(self.thing_sem_seg_ids) == 1:
            return self.thing_sem_seg_ids[0]
        if thing_class < len(self.thing_sem_seg_ids):
            return self.thing_sem_seg_ids[thing_class]
        raise ValueError(
            f"DINCombiner has semantic ids of {len(self.thing_sem_seg_ids)} thing classes, but a detection of class "
            f"{thing_class}: thing_sem_seg_ids (MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS) must have one for each, "
            'or that of "other" alone.'
        )

    def _agreement(self, inside: torch.Tensor, mask: torch.Tensor, box: torch.Tensor, score: float) -> torch.Tensor:
        """ln[w₁·σ(2s − 1) inside the box + w₂ + w₃·m] of one detection, float32 (h, w)."""
        w, pasted = self.weights, torch.zeros(inside.shape, device=inside.device)
        window, probs = _pasted(mask, box, (inside.shape[0], inside.shape[1]))
        pasted[window] = probs
        total = inside * (w.box * _sigmoid(2 * score - 1)) + w.everywhere + w.shape * pasted
        return total.clamp(min=torch.finfo(torch.float32).tiny).log()

    def _without_overlapped(
        self, found: LabelScores, instances: PlacedInstances, image_size: tuple[int, int]
    ) -> LabelScores:
        """Without detections that win too little of their masks, at the size of the network input.

        The worst is judged first: what it has goes to the others before they are. ``found.scores`` are changed.
        """
        if self.overlap_threshold >= 1 or not found.things:
            return found
        scores, placement = found.scores, instances.placement
        best, boxes = scores.argmax(dim=0), _on_input(instances, image_size).boxes
        kept = []
        for n, k in reversed(list(enumerate(found.things))):
            row = placement.rows[k]
            window, probs = _pasted(instances.pred_masks[row, 0], boxes[row], image_size)
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


def _on_input(instances: PlacedInstances, image_size: tuple[int, int]) -> Placement:
    return place_instances(Instances(image_size, **instances.get_fields()), image_size).placement


def _inside(box: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Pixels whose centres lie in a box, bool (h, w)."""
    y, x = (torch.arange(n, device=box.device) + 0.5 for n in image_size)
    rows, columns = (y >= box[1]) & (y < box[3]), (x >= box[0]) & (x < box[2])
    return rows[:, None] & columns


def _pasted(mask: torch.Tensor, box: torch.Tensor, image_size: tuple[int, int]) -> tuple[Window, torch.Tensor]:
    """A mask's probabilities and where they are."""
    (window,) = paste_windows([box.tolist()], image_size)
    return window, paste_probs(mask, box, window)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def checked_weights(weights: DINWeights | Sequence[float]) -> DINWeights:
    """Five weights as numbers.

    Raises:
        ValueError: they are not five numbers of at least 0, or the first three are all 0.
    """
    values = [float(w) for w in weights]
    if len(values) != 5 or not all(math.isfinite(w) and w >= 0 for w in values) or not any(values[:3]):
        raise ValueError(
            f"DINCombiner needs five weights of at least 0 ({', '.join(DINWeights._fields)}), the first three not all "
            f"0, got {list(weights)}: see MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS."
        )
    return DINWeights(*values)


def _check_image(image: torch.Tensor, image_size: tuple[int, int]) -> None:
    if image.shape != (3, *image_size):
        raise ValueError(
            f"DINCombiner needs the network input of shape {(3, *image_size)}, without padding, got an image of shape "
            f"{tuple(image.shape)}."
        )


def _without_negligible(unary: LabelScores) -> LabelScores:
    """Without stuff that is far below the best label at every pixel; detections stay, there are few."""
    num_things = len(unary.things)
    if not len(unary.scores):
        return unary
    best = unary.scores.max(dim=0).values
    highest = torch.stack([(scores - best).max() for scores in unary.scores]).tolist()
    # Not-a-number is never below: such labels stay.
    kept = [k for k, value in enumerate(highest) if k < num_things or not value < math.log(_NEGLIGIBLE)]
    stuff = [unary.stuff[k - num_things] for k in kept if k >= num_things]
    if len(kept) == len(unary.scores):
        return unary
    return LabelScores(unary.scores[kept], unary.things, stuff)
