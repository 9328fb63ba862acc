"""The unary terms of the Dynamically Instantiated Network: how well each label fits each pixel by itself.

Shapes: D detections that take part, S stuff classes, L = D + S labels, h, w network input, H, W output.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Instances

from ..postprocessing import (
    PlacedInstances,
    Placement,
    Window,
    paste_probs,
    paste_windows,
    place_instances,
    upsample_sem_seg_logits,
)
from .segments import candidate_rows

__all__ = [
    "DEFAULT_WEIGHTS",
    "DINWeights",
    "LabelScores",
    "checked_weights",
    "on_input",
    "pasted",
    "unary_scores",
    "without_negligible",
]

# A label that is less likely than the best one by this factor, everywhere, changes no marginal by more, and never wins.
_NEGLIGIBLE = 1e-6

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


def unary_scores(
    instances: PlacedInstances,
    sem_seg_logits: torch.Tensor,
    image_size: tuple[int, int],
    *,
    weights: DINWeights,
    thing_sem_seg_ids: Sequence[int],
    sem_seg_stride: int,
    instance_score_threshold: float,
) -> LabelScores:
    """−U of all labels, differentiable in masks, logits and weights. Arguments as of :class:`.DINCombiner`."""
    logits = upsample_sem_seg_logits(sem_seg_logits, sem_seg_stride, image_size, image_size)
    log_probs = logits.log_softmax(dim=0)
    placement = instances.placement
    things = candidate_rows(placement.scores, instance_score_threshold)
    stuff = [label for label in range(len(log_probs)) if label not in thing_sem_seg_ids]
    classes, scores = [placement.classes[k] for k in things], [placement.scores[k] for k in things]
    boxes = on_input(instances, image_size).boxes[[placement.rows[k] for k in things]]
    inside = [_inside(box, image_size) for box in boxes]
    log_shares = _log_shares(thing_sem_seg_ids, classes, scores, inside)
    unary = [
        log_probs[_semantic_id(thing_sem_seg_ids, classes[n])]
        + log_shares[n]
        + _agreement(weights, inside[n], instances.pred_masks[placement.rows[k], 0], boxes[n], scores[n])
        for n, k in enumerate(things)
    ]
    whole_image = torch.as_tensor(weights.box * _sigmoid(1.0) + weights.everywhere + weights.shape).log()
    unary += [log_probs[label] + whole_image for label in stuff]
    return LabelScores(torch.stack(unary) if unary else log_probs[:0], things, stuff)


def _log_shares(
    thing_sem_seg_ids: Sequence[int], classes: Sequence[int], scores: Sequence[float], inside: Sequence[torch.Tensor]
) -> list[torch.Tensor | float]:
    """Of each detection, the logarithm of what Q(other) is multiplied by; 0 where things have Q of their own."""
    if len(thing_sem_seg_ids) != 1 or not classes:
        return [0.0] * len(classes)
    tiny = torch.finfo(torch.float32).tiny
    local = {c: torch.zeros_like(inside[0], dtype=torch.float32) for c in set(classes)}
    whole = dict.fromkeys(local, 0.0)
    for c, score, box in zip(classes, scores, inside, strict=True):
        local[c] += score * box
        whole[c] += score
    at_pixel, in_image = torch.stack(list(local.values())).sum(dim=0), max(sum(scores), tiny)
    log_share = {
        c: torch.where(at_pixel > 0, local[c] / at_pixel, whole[c] / in_image).clamp_(min=tiny).log_() for c in local
    }
    return [log_share[c] for c in classes]


def _semantic_id(thing_sem_seg_ids: Sequence[int], thing_class: int) -> int:
    if len(thing_sem_seg_ids) == 1:
        return thing_sem_seg_ids[0]
    if thing_class < len(thing_sem_seg_ids):
        return thing_sem_seg_ids[thing_class]
    raise ValueError(
        f"DINCombiner has semantic ids of {len(thing_sem_seg_ids)} thing classes, but a detection of class "
        f"{thing_class}: thing_sem_seg_ids (MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS) must have one for each, "
        'or that of "other" alone.'
    )


def _agreement(
    weights: DINWeights, inside: torch.Tensor, mask: torch.Tensor, box: torch.Tensor, score: float
) -> torch.Tensor:
    """ln[w₁·σ(2s − 1) inside the box + w₂ + w₃·m] of one detection, float32 (h, w)."""
    on_image = torch.zeros(inside.shape, device=inside.device)
    window, probs = pasted(mask, box, (inside.shape[0], inside.shape[1]))
    on_image[window] = probs
    total = inside * (weights.box * _sigmoid(2 * score - 1)) + weights.everywhere + weights.shape * on_image
    return total.clamp(min=torch.finfo(torch.float32).tiny).log()


def on_input(instances: PlacedInstances, image_size: tuple[int, int]) -> Placement:
    """Where instances lie in the network input; those of ``instances`` lie in the output."""
    return place_instances(Instances(image_size, **instances.get_fields()), image_size).placement


def _inside(box: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Pixels whose centres lie in a box, bool (h, w)."""
    y, x = (torch.arange(n, device=box.device) + 0.5 for n in image_size)
    rows, columns = (y >= box[1]) & (y < box[3]), (x >= box[0]) & (x < box[2])
    return rows[:, None] & columns


def pasted(mask: torch.Tensor, box: torch.Tensor, image_size: tuple[int, int]) -> tuple[Window, torch.Tensor]:
    """A mask's probabilities and where they are."""
    (window,) = paste_windows([box.tolist()], image_size)
    return window, paste_probs(mask, box, window)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def without_negligible(unary: LabelScores) -> LabelScores:
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
