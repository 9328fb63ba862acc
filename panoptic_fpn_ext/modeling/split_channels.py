"""A pyramid whose channels are split between the two branches (Panoptic FPN, section 5.3, "grouped FPN").

Shapes: N images, F channels of a level, an even number.
"""

from collections.abc import Mapping

import torch
from detectron2.layers import ShapeSpec

__all__ = ["split_features", "split_shapes"]


def split_shapes(shapes: Mapping[str, ShapeSpec]) -> tuple[dict[str, ShapeSpec], dict[str, ShapeSpec]]:
    """Shapes of the levels that the instance and the semantic branch see.

    Raises:
        ValueError: a level has an odd number of channels.
    """
    odd = {name: shape.channels for name, shape in shapes.items() if (shape.channels or 0) % 2}
    if odd:
        raise ValueError(
            f"MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS needs an even number of channels at each level, got {odd}; set "
            "MODEL.FPN.OUT_CHANNELS to an even number."
        )
    half = {name: ShapeSpec(channels=(shape.channels or 0) // 2, stride=shape.stride) for name, shape in shapes.items()}
    return half, dict(half)


def split_features(features: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """First and second half of the channels of each level, float (N, F, h, w) to twice (N, F / 2, h, w)."""
    halves = {name: level.chunk(2, dim=1) for name, level in features.items()}
    return {name: first for name, (first, _) in halves.items()}, {name: second for name, (_, second) in halves.items()}
