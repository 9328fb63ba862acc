"""Batch norms with constant statistics: in place in training, part of the convolutions before them in inference.

Shapes: N images, C channels, h, w.
"""

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from ..graph_capture import is_capturing_graph
from .replace import Place

__all__ = ["InPlaceFrozenBatchNorm2d", "fold_batch_norm", "follows_convolution", "has_constant_norm"]


class InPlaceFrozenBatchNorm2d(FrozenBatchNorm2d):
    """`FrozenBatchNorm2d` that, in training, overwrites its input: the same sums without two more tensors of its size.

    Only for an input that nothing else needs, such as what a convolution gives: its backward pass does not look at its
    output.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the parent, with float (N, C, h, w)."""
        if is_capturing_graph() or not x.requires_grad or x.is_leaf or x.dtype != self.weight.dtype:
            result: torch.Tensor = super().forward(x)
            return result
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x.mul_(scale.reshape(1, -1, 1, 1)).add_(bias.reshape(1, -1, 1, 1))


def follows_convolution(place: Place) -> bool:
    """Whether a norm belongs to a convolution of detectron2's class, so that nothing else sees its input."""
    return isinstance(place.parent, Conv2d) and place.parent.norm is place.module


def has_constant_norm(place: Place) -> bool:
    """Whether a convolution has a (frozen) batch norm with running statistics; group norms depend on the image."""
    norm = place.module.norm
    is_batch_norm = isinstance(norm, FrozenBatchNorm2d | nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and norm.running_mean is not None


def fold_batch_norm(place: Place) -> nn.Module:
    """Multiply the batch norm of a convolution into its weight and bias, and take it away.

    norm(conv(x)) = s·(W x + b - mean) + bias, with s = weight / sqrt(var + eps).
    """
    conv: Any = place.module
    norm = conv.norm
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight, conv.bias, conv.norm = _constant(weight), _constant(shift), None
    return conv


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)
