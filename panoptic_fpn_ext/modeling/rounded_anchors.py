"""Anchors as torchvision has them, for its checkpoints."""

from collections.abc import Sequence

import torch
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

__all__ = ["RoundedAnchorGenerator"]


@ANCHOR_GENERATOR_REGISTRY.register()
class RoundedAnchorGenerator(DefaultAnchorGenerator):
    """detectron2's `DefaultAnchorGenerator` with corners at whole pixels around the centre."""

    def generate_cell_anchors(
        self, sizes: Sequence[float] = (32, 64, 128, 256, 512), aspect_ratios: Sequence[float] = (0.5, 1, 2)
    ) -> torch.Tensor:
        """Float (A, 4), XYXY around the origin, as the parent's, rounded."""
        anchors: torch.Tensor = super().generate_cell_anchors(sizes, aspect_ratios)
        return anchors.round()
