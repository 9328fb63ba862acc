"""Modules of a built model with another way to compute the same.

Shapes: N images or RoIs, C input, K output channels, h, w input, h', w' output.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import nn

from ..cpu import is_float32_on_cpu

__all__ = ["SwappedConv2d", "is_bare", "is_pointwise", "is_usual", "swap_convolutions"]


def is_usual(x: torch.Tensor) -> bool:
    """Whether an input is what the ways of this package are made for: float32 on a CPU, not empty, no gradient."""
    return is_float32_on_cpu(x) and not x.requires_grad


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution is a matrix product: 1×1, each position by itself, all channels together."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


def is_bare(conv: Any) -> bool:
    """Whether a convolution of detectron2's class has, at least by now, neither norm nor activation."""
    return conv.norm is None and conv.activation is None


class SwappedConv2d(Conv2d):
    """Convolution → norm → activation, the first of them by :meth:`convolve` wherever that can be."""

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


def swap_convolutions(model: nn.Module, new_class: type[SwappedConv2d], fits: Callable[[nn.Conv2d], bool]) -> list[Any]:
    """Give the convolutions that fit another class; parameters, their names and what `isinstance` says stay.

    Args:
        model: it is changed.
        new_class: has no parameters of its own.
        fits: whether a convolution, of detectron2's class or PyTorch's own but of no class derived from them, is meant.

    Returns:
        The convolutions with the new class.
    """
    plain: list[Any] = [module for module in model.modules() if type(module) in (Conv2d, nn.Conv2d)]
    swapped = [conv for conv in plain if fits(conv)]
    for conv in swapped:
        conv.norm, conv.activation = getattr(conv, "norm", None), getattr(conv, "activation", None)
        conv.__class__ = new_class
    return swapped
