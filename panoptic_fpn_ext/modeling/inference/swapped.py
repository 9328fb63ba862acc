"""Convolutions of a built model with another way to compute the same.

Shapes: N pictures or RoIs, C input, K output channels, h, w input, h', w' output.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import nn

__all__ = ["SwappedConv2d", "swap_convolutions"]


class SwappedConv2d(Conv2d):
    """Convolution → norm → activation, the first of them by :meth:`convolve` wherever that can be."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (N, C, h, w) → float (N, K, h', w'), with channels first or last."""
        is_usual = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if not is_usual or x.numel() == 0:
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
