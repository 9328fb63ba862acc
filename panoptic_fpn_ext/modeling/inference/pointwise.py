"""1×1 convolutions with few outputs, in the layout that their input has.

PyTorch's convolution first brings a large map with channels first into another order, which takes longer than the
convolution itself when there are few outputs, as in the RPN's and in mask predictors. The matrix product needs no other
order.

Shapes: N images or RoIs, C input, K output channels, h, w.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .swapped import SwappedConv2d, is_pointwise, swap_convolutions

__all__ = ["NarrowingConv2d", "use_products_for_narrowing_convolutions"]


def use_products_for_narrowing_convolutions(model: nn.Module) -> None:
    """Let the 1×1 convolutions of a model that have at most half as many outputs as inputs be matrix products.

    Args:
        model: it is changed.
    """
    swap_convolutions(model, NarrowingConv2d, _is_narrowing)


def _is_narrowing(conv: nn.Conv2d) -> bool:
    return is_pointwise(conv) and 2 * conv.out_channels <= conv.in_channels


class NarrowingConv2d(SwappedConv2d):
    """1×1 convolution: a product where channels come first, PyTorch's convolution where they are last."""

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """In the layout of ``x``."""
        if not x.is_contiguous():
            return F.conv2d(x, self.weight, self.bias)
        weight = self.weight.flatten(1).expand(len(x), -1, -1)  # N, K, C
        columns = x.flatten(2)  # N, C, h·w
        if self.bias is None:
            return torch.bmm(weight, columns).unflatten(2, x.shape[2:])
        return torch.baddbmm(self.bias[:, None], weight, columns).unflatten(2, x.shape[2:])
