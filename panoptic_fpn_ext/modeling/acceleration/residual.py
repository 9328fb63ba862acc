"""Residual blocks that make no second map.

The widest maps of a ResNet are what its blocks add to. The last convolution of a block adds to the map of the shortcut
where that stands, and rectifies it at once. For large maps this is faster, since the first touch of new memory is slow.

Shapes: N images, C input, K output channels, h, w.
"""

import functools

import torch
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torch.nn import functional as F

from .convolution import is_bare, is_pointwise
from .cpu import is_usual
from .replace import Place

__all__ = ["InPlaceBottleneckBlock", "may_overwrite_shortcut"]


def may_overwrite_shortcut(place: Place) -> bool:
    """Whether nothing but a block needs what it adds to.

    That is the result of the shortcut's own convolution, or of the block before in the same stage; the result of a
    stage stays, since backbones return it.
    """
    block = place.module
    in_stage = isinstance(place.parent, nn.Sequential)
    has_shortcut_of_its_own = block.shortcut is not None or isinstance(place.previous, BottleneckBlock)
    return in_stage and has_shortcut_of_its_own and is_pointwise(block.conv3) and is_bare(block.conv3)


class InPlaceBottleneckBlock(BottleneckBlock):
    """detectron2's `BottleneckBlock` that overwrites its shortcut, which may be its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (N, C, h, w) → float (N, K, h / stride, w / stride)."""
        if not is_usual(x):
            usual: torch.Tensor = super().forward(x)
            return usual
        residual = F.relu_(self.conv2(F.relu_(self.conv1(x))))
        total: torch.Tensor = x if self.shortcut is None else self.shortcut(x)
        if not (_can_add_convolutions() and total.is_contiguous(memory_format=torch.channels_last)):
            total += self.conv3(residual)
            return F.relu_(total)
        return _add_convolution(
            total, residual.contiguous(memory_format=torch.channels_last), self.conv3.weight, self.conv3.bias
        )


def _add_convolution(
    total: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """max(total + conv(x), 0) for a 1×1 convolution, in the memory of ``total``, by the operator that PyTorch has for
    compiled models.
    """
    geometry = [0, 0], [1, 1], [1, 1], 1  # padding, stride, dilation, groups
    added: torch.Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, weight, bias, *geometry, "add", 1.0, "relu", [], ""
    )
    return added


@functools.cache
def _can_add_convolutions() -> bool:
    """Whether the operator is there and does what is expected, which a PyTorch to come may change."""
    numbers = torch.linspace(-1, 1, 8 * 8 + 2 * 8 * 4 * 4 + 8, dtype=torch.float32, device="cpu").sin()
    weight, x, total, bias = numbers.split([8 * 8, 8 * 4 * 4, 8 * 4 * 4, 8])
    weight = weight.view(8, 8, 1, 1)
    x, total = (map_.view(1, 4, 4, 8).permute(0, 3, 1, 2).clone() for map_ in (x, total))
    expected = F.relu(total + F.conv2d(x, weight, bias))
    try:
        _add_convolution(total, x, weight, bias)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(total, expected, atol=1e-5)
