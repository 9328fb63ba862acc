"""From the mapper's dicts to the targets of a batch.

Shapes: N images, h, w network input, padding included.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList, Instances
from detectron2.utils.logger import log_first_n

__all__ = ["gt_instances", "sem_seg_targets"]


def sem_seg_targets(
    batched_inputs: Sequence[Mapping[str, Any]], images: ImageList, backbone: Backbone, ignore_value: int
) -> torch.Tensor:
    """Semantic targets of a batch, padded as its images are; an image without ``sem_seg`` is all ignore label.

    Args:
        batched_inputs: ``sem_seg``, int64 (height, width), semantic ids or ``ignore_value``.
        images: the padded images, on the device where the targets are needed.
        backbone: tells how images are padded.
        ignore_value: label that takes no part in the loss.

    Returns:
        int64 (N, h, w).
    """
    targets = []
    for inputs, (height, width) in zip(batched_inputs, images.image_sizes, strict=True):
        target = inputs.get("sem_seg")
        if target is None:
            log_first_n(
                logging.WARNING,
                "A training image has no 'sem_seg': it teaches the semantic head nothing. Does the dataset have "
                "semantic or panoptic ground truth, and the trainer PanopticDatasetMapper?",
            )
            target = torch.full((height, width), ignore_value)
        targets.append(target.to(images.tensor.device))
    return ImageList.from_tensors(
        targets,
        backbone.size_divisibility,
        pad_value=ignore_value,
        padding_constraints=backbone.padding_constraints,
    ).tensor


def gt_instances(batched_inputs: Sequence[Mapping[str, Any]], device: torch.device) -> list[Instances]:
    """The ``instances`` of a batch, which may be empty; ``ValueError`` where an image has none."""
    if any("instances" not in inputs for inputs in batched_inputs):
        raise ValueError(
            "Every training image needs 'instances' (which may be empty). Mappers of data loaders make them, of "
            "panoptic PNGs panoptic_fpn_ext.data.PanopticDatasetMapper."
        )
    return [inputs["instances"].to(device) for inputs in batched_inputs]
