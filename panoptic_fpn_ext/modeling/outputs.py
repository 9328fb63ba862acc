"""The outputs of one image, from what the network says of it: those that are asked for, and what they share once.

Shapes: C semantic classes, h, w network input, H, W output.
"""

import math
from collections.abc import Set
from typing import Any

import torch

from .combiner.build import PanopticCombiner
from .graph_capture import is_capturing_graph
from .postprocessing import (
    OutputMemory,
    label_pixels,
    place_instances,
    postprocess_instances,
    upsample_sem_seg_logits,
)

__all__ = ["OUTPUTS", "POSSIBLE_OUTPUTS", "SEMANTIC_OUTPUTS", "image_outputs", "lowest_useful_score"]

OUTPUTS = ("panoptic_seg", "instances", "sem_seg")
"""What a model returns of an image by default."""

POSSIBLE_OUTPUTS = (*OUTPUTS, "sem_seg_labels")
"""What it can return: labels are the argmax of ``sem_seg``, without logits of that size."""

SEMANTIC_OUTPUTS = frozenset(["sem_seg", "sem_seg_labels"])


def lowest_useful_score(outputs: Set[str], combiner: PanopticCombiner) -> float:
    """Score below which the mask of a detection changes no output."""
    if "instances" in outputs:
        return -math.inf
    return float(getattr(combiner, "instance_score_threshold", -math.inf))


def image_outputs(
    instances: Any,
    sem_seg_logits: Any,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    *,
    outputs: Set[str],
    combiner: PanopticCombiner,
    sem_seg_stride: int,
    image: torch.Tensor | None,
    memory: OutputMemory,
) -> dict[str, Any]:
    """What a model returns of one image, at output size.

    Args:
        instances: raw detections, `Instances`; None where no output needs them.
        sem_seg_logits: float (C, h', w') at ``sem_seg_stride``, padding included; None where no output needs them.
        image_size: (h, w) of the network input without padding.
        output_size: (H, W).
        outputs: some of ``POSSIBLE_OUTPUTS``.
        combiner: makes ``panoptic_seg``.
        image: (3, h, w) as it was read, for combiners that look at colours; the network's own is normalised.
        memory: where full-size outputs lie that nobody has any more.

    Returns:
        As `PanopticFPNExt` in inference.
    """
    result: dict[str, Any] = {}
    if instances is not None and not is_capturing_graph():
        instances = place_instances(instances, output_size)  # once for both outputs that look at them
    if "sem_seg" in outputs:
        result["sem_seg"] = upsample_sem_seg_logits(sem_seg_logits, sem_seg_stride, image_size, output_size, memory)
    if "sem_seg_labels" in outputs:
        result["sem_seg_labels"] = label_pixels(sem_seg_logits, sem_seg_stride, image_size, output_size)
    if "instances" in outputs:
        result["instances"] = postprocess_instances(instances, output_size, memory=memory)
    if "panoptic_seg" in outputs:
        known: dict[str, Any] = {}
        if getattr(combiner, "needs_image", False):
            known["image"] = image
        if "sem_seg_labels" in result and getattr(combiner, "takes_labels", False):
            known["sem_seg_labels"] = result["sem_seg_labels"]
        prediction = combiner(instances, sem_seg_logits, image_size, output_size, **known)
        result["panoptic_seg"] = (prediction.panoptic_seg, prediction.segments_info)
    return result
