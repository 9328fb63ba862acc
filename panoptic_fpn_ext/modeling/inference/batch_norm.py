"""Batch norms with constant statistics as part of the convolutions before them."""

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

__all__ = ["fold_batch_norms"]


def fold_batch_norms(model: nn.Module) -> None:
    """Multiply every (frozen) batch norm of a model's convolutions into weights and biases, and take it away.

    Norms that depend on the image, such as group norm, and batch norms without running statistics stay.

    Args:
        model: in evaluation mode; it is changed.
    """
    for conv in model.modules():
        if isinstance(conv, Conv2d) and _has_constant_statistics(conv.norm):
            _fold(conv, conv.norm)


def _has_constant_statistics(norm: Any) -> bool:
    is_batch_norm = isinstance(norm, FrozenBatchNorm2d | nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and norm.running_mean is not None


def _fold(conv: Conv2d, norm: Any) -> None:
    """norm(conv(x)) = s·(W x + b - mean) + bias, with s = weight / sqrt(var + eps)."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight, conv.bias, conv.norm = _constant(weight), _constant(shift), None


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)
