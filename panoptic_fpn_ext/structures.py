"""The few data types that travel between the rooms of this package.

Shapes: N images, C semantic classes, K instances or segments, H, W output size, h, w size of a network map.
"""

from dataclasses import dataclass
from typing import Final, TypedDict

import torch
from detectron2.structures import Instances

__all__ = [
    "IGNORE_LABEL",
    "LARGE_IGNORE_LABEL",
    "THINGS_SEM_SEG_ID",
    "VOID_ID",
    "PanopticPrediction",
    "PanopticTargets",
    "RawOutputs",
    "SegmentInfo",
    "UnreadableFileError",
]

VOID_ID: Final = 0
"""Segment id of unlabelled pixels in panoptic maps and PNGs."""

IGNORE_LABEL: Final = 255
"""Semantic training target of pixels that take no part in the loss (void and padding)."""

LARGE_IGNORE_LABEL: Final = 65535
"""The same where 255 is a class, as in detectron2's full ADE20K."""

THINGS_SEM_SEG_ID: Final = 0
"""Semantic id that stands for every thing pixel in the "things as other" space."""


class UnreadableFileError(OSError, ValueError):
    """An image or a map whose file is broken, as opposed to one of a kind that is refused."""


class _RequiredSegmentInfo(TypedDict):
    id: int
    category_id: int
    isthing: bool


class SegmentInfo(_RequiredSegmentInfo, total=False):
    """One predicted segment, in detectron2's format.

    ``id`` is unique in its image and starts at 1; ``category_id`` is a contiguous thing id when ``isthing`` and a
    semantic id otherwise. Things add ``score`` and ``instance_id`` (row in the detections), stuff adds ``area`` (px).
    """

    score: float
    instance_id: int
    area: int


@dataclass(frozen=True)
class PanopticPrediction:
    """``panoptic_seg``: int32 (H, W) with segment ids 0 (void), 1..K; ``segments_info``: those K segments, in id
    order.
    """

    panoptic_seg: torch.Tensor
    segments_info: list[SegmentInfo]


@dataclass(frozen=True)
class PanopticTargets:
    """What one training image teaches.

    ``sem_seg``: int64 (H, W), semantic ids or the ignore label. ``instances``: ``gt_boxes`` (XYXY, px), ``gt_classes``
    (contiguous thing ids) and ``gt_masks`` of the K countable segments; K may be 0.
    """

    sem_seg: torch.Tensor
    instances: Instances


@dataclass(frozen=True)
class RawOutputs:
    """What the network says of a batch before any post-processing; exports and benchmarks cut here.

    ``instances``: one `Instances` an image in network input pixels, ``pred_masks`` float (K, 1, M, M) probabilities.
    ``sem_seg_logits``: float (N, C, h, w) at the semantic head's stride, padding included.
    ``image_sizes``: (height, width) of each network input without padding.
    """

    instances: list[Instances]
    sem_seg_logits: torch.Tensor
    image_sizes: list[tuple[int, int]]
