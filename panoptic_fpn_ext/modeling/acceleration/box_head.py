"""Pooled RoIs that stay in the order in which they are gathered, up to the box head's first matrix product.

Shapes: N images, C channels, h, w map; R RoIs; P cells.
"""

from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.structures import Boxes
from torch import nn

from .cpu import is_usual
from .replace import Place, take_over
from .roi_align import GatheringROIAlign

__all__ = ["ChannelsLastFlatten", "ChannelsLastROIPooler", "feeds_box_head"]


def feeds_box_head(place: Place) -> bool:
    """Whether a module flattens pooled RoIs for a fully connected box head of detectron2."""
    is_first = type(place.parent) is FastRCNNConvFCHead and getattr(place.parent, "flatten", None) is place.module
    return is_first and _pooler(place) is not None


def _pooler(place: Place) -> Any:
    """What pools for the box head that a module is part of; a cascade has one for several heads."""
    for roi_heads in place.parents:
        box_head, pooler = getattr(roi_heads, "box_head", None), getattr(roi_heads, "box_pooler", None)
        if isinstance(pooler, ROIPooler) and any(box_head is parent for parent in place.parents):
            return pooler
    return None


class ChannelsLastFlatten(nn.Flatten):
    """Flattens position by position, not channel by channel."""

    @classmethod
    def from_place(cls, place: Place) -> "ChannelsLastFlatten":
        """What takes the place of a box head's; the weight of the matrix product after it gets the same order."""
        head, (height, width) = place.parent, _pooler(place).output_size
        by_position = head.fc1.weight.unflatten(1, (-1, height, width)).permute(0, 2, 3, 1).flatten(1)
        head.fc1.weight = nn.Parameter(by_position.contiguous(), requires_grad=False)
        flatten: ChannelsLastFlatten = take_over(cls, place.module)
        return flatten

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(R, C, P, P) → (R, P·P·C), without a copy if channels are last."""
        return input.permute(0, 2, 3, 1).flatten(1)


class ChannelsLastROIPooler(ROIPooler):
    """detectron2's `ROIPooler`, which lets each level write its RoIs to their place."""

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """Maps float (N, C, h, w), finest first, and boxes an image in network input pixels → float (R, C, P, P)."""
        if not all(isinstance(pooler, GatheringROIAlign) for pooler in self.level_poolers) or not is_usual(x[0]):
            usual: torch.Tensor = super().forward(x, box_lists)
            return usual
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = self._levels(box_lists, len(rois))
        pooled = x[0].new_empty(len(rois), *self.output_size, x[0].shape[1])
        for level, (features, pooler) in enumerate(zip(x, self.level_poolers, strict=True)):
            pooler.pool_into(pooled, (levels == level).nonzero()[:, 0], features, rois)
        pooled[(levels < 0) | (levels >= len(x))] = 0  # boxes without a size, as in the parent
        return pooled.permute(0, 3, 1, 2)

    def _levels(self, box_lists: list[Boxes], count: int) -> torch.Tensor:
        """int64 (R,): the level of each box; any other number for boxes whose area is negative or NaN."""
        if len(self.level_poolers) == 1:
            return torch.zeros(count, dtype=torch.int64, device="cpu")
        levels: torch.Tensor = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        return levels
