"""Combiners of this package on detectron2's own `PanopticFPN`."""

from collections.abc import Sequence
from typing import Any

import torch

from ...structures import PanopticPrediction
from .build import PanopticCombiner

__all__ = ["combine_built_in"]


@torch.no_grad()
def combine_built_in(
    model: torch.nn.Module, batched_inputs: Sequence[dict[str, Any]], combiner: PanopticCombiner
) -> list[PanopticPrediction]:
    """Panoptic maps of a trained built-in model by another combiner than its own.

    Args:
        model: detectron2's `PanopticFPN`, in evaluation mode. It is not changed.
        batched_inputs: as the model takes them.
        combiner: made with ``sem_seg_stride=1``, since the built-in semantic head upsamples its logits, as
            ``build_panoptic_combiner(cfg, sem_seg_stride=1)`` or ``HeuristicCombiner(sem_seg_stride=1)``.

    Returns:
        One prediction an image, at its ``height`` and ``width``.

    Raises:
        ValueError: a combiner for logits of another stride.
    """
    stride = getattr(combiner, "sem_seg_stride", 1)
    if stride != 1:
        raise ValueError(
            f"The built-in model's logits have a stride of 1, and the combiner's sem_seg_stride is {stride}."
        )
    detections, logits = model.inference(list(batched_inputs), do_postprocess=False)  # type: ignore[operator]
    results = []
    for inputs, instances, one in zip(batched_inputs, detections, logits, strict=True):
        image_size = instances.image_size
        output_size = inputs.get("height", image_size[0]), inputs.get("width", image_size[1])
        image = {"image": inputs["image"]} if getattr(combiner, "needs_image", False) else {}
        results.append(combiner(instances, one, image_size, output_size, **image))
    return results
