"""The instance and the semantic branch: which of them take part, and what each sees of the pyramid.

Shapes: N images, F channels of a level.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from detectron2.layers import ShapeSpec

__all__ = ["BOTH", "Branches", "Features", "split_features", "split_shapes"]

Features = dict[str, torch.Tensor]
"""Pyramid levels by name, float (N, F, h, w)."""


class Branches(NamedTuple):
    """Which branches take part in a computation."""

    instances: bool
    semantics: bool


BOTH: Final = Branches(instances=True, semantics=True)


def split_shapes(shapes: Mapping[str, ShapeSpec]) -> tuple[dict[str, ShapeSpec], dict[str, ShapeSpec]]:
    """Shapes of the levels where each branch sees its half of the channels (Panoptic FPN, section 5.3, "grouped FPN").

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


def split_features(features: Features) -> tuple[Features, Features]:
    """First and second half of the channels of each level, float (N, F, h, w) to twice (N, F / 2, h, w)."""
    halves = {name: level.chunk(2, dim=1) for name, level in features.items()}
    return {name: first for name, (first, _) in halves.items()}, {name: second for name, (_, second) in halves.items()}
