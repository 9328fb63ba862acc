"""Convolutions that compute another way where that is possible, and their layout.

Shapes: N images or RoIs, C input, K output channels, h, w input, h', w' output.
"""

from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from .cpu import is_usual
from .replace import Place, take_over

__all__ = [
    "FasterConv2d",
    "NarrowingConv2d",
    "has_pytorchs_layout",
    "is_bare",
    "is_narrowing",
    "is_pointwise",
    "use_channels_last",
]


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution is a matrix product: 1×1, each position by itself, all channels together."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


def is_bare(conv: Any) -> bool:
    """Whether a convolution of detectron2's class has, at least by now, neither norm nor activation."""
    return conv.norm is None and conv.activation is None


class FasterConv2d(Conv2d):
    """Convolution → norm → activation, the first of them by :meth:`convolve` wherever that can be."""

    @classmethod
    def from_place(cls, place: Place) -> "FasterConv2d":
        """What takes the place of a convolution of detectron2's class or of PyTorch's own."""
        new: FasterConv2d = take_over(cls, place.module)
        new.norm, new.activation = getattr(place.module, "norm", None), getattr(place.module, "activation", None)
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (N, C, h, w) → float (N, K, h', w'), with channels first or last."""
        if not is_usual(x):
            usual: torch.Tensor = super().forward(x)
            return usual
        x = self.convolve(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (N, C, h, w) on a CPU, not empty → float32 (N, K, h', w'), bias included, in memory of its own."""
        raise NotImplementedError


def is_narrowing(place: Place) -> bool:
    """Whether a convolution is 1×1 and has at most half as many outputs as inputs."""
    return is_pointwise(place.module) and 2 * place.module.out_channels <= place.module.in_channels


class NarrowingConv2d(FasterConv2d):
    """1×1 convolution with few outputs, in the layout that its input has.

    PyTorch's convolution first brings a large map with channels first into another order, which takes longer than the
    convolution itself when there are few outputs, as in the RPN's and in mask predictors. The matrix product needs no
    other order; where channels are last, PyTorch's convolution is taken.
    """

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """In the layout of ``x``."""
        if not x.is_contiguous():
            return F.conv2d(x, self.weight, self.bias)
        weight = self.weight.flatten(1).expand(len(x), -1, -1)  # N, K, C
        columns = x.flatten(2)  # N, C, h·w
        if self.bias is None:
            return torch.bmm(weight, columns).unflatten(2, x.shape[2:])
        return torch.baddbmm(self.bias[:, None], weight, columns).unflatten(2, x.shape[2:])


def has_pytorchs_layout(place: Place) -> bool:
    """Whether PyTorch convolves, in the layout of the weight; not Winograd's algorithm, which wants channels first."""
    return not isinstance(place.module, FasterConv2d)


def use_channels_last(place: Place) -> nn.Module:
    """The same convolution with channels last."""
    conv: nn.Module = place.module.to(memory_format=torch.channels_last)
    return conv
