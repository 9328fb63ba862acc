"""Deformable convolutions on a CPU, and without detectron2's compiled ``_C``.

detectron2's `DeformConv` and `ModulatedDeformConv` call operators of ``_C``, which know no gradient on a CPU; without
``_C`` the two classes raise an ImportError instead. Here torchvision's operator, which has both, takes the operators'
place. The layers, their parameters and their names stay detectron2's.

Shapes: N images, C and D channels, k kernel side, G deformable groups; h, w input and h', w' output maps.
"""

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from detectron2 import layers
from detectron2.layers import deform_conv as operators
from detectron2.modeling.backbone import resnet
from torch import nn
from torchvision.ops import deform_conv2d

__all__ = ["use_torchvisions_operator"]

_LAYERS = ("DeformConv", "ModulatedDeformConv")
_HOLDERS = (operators, layers, resnet)
"""Modules of detectron2 that hold the layers by name."""


def use_torchvisions_operator() -> None:
    """Let detectron2's deformable layers compute with torchvision's operator wherever ``_C`` cannot.

    With ``_C`` that is on a CPU, without it everywhere.
    """
    if issubclass(operators.DeformConv, nn.Module):
        operators.deform_conv = _unless_on_gpu(_deform_conv, operators.deform_conv)
        operators.modulated_deform_conv = _unless_on_gpu(_modulated_deform_conv, operators.modulated_deform_conv)
        return
    complete = _execute_with_empty_extension()
    complete.deform_conv, complete.modulated_deform_conv = _deform_conv, _modulated_deform_conv
    for holder in _HOLDERS:
        for name in _LAYERS:
            setattr(holder, name, getattr(complete, name))


def _execute_with_empty_extension() -> Any:
    """detectron2's module of the layers, which takes them back at its end where there is no ``_C`` to import."""
    spec = importlib.util.find_spec(operators.__name__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["detectron2._C"]
    return module


def _unless_on_gpu(ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """One function of the other two, chosen by the device of its first argument."""

    @functools.wraps(ours)
    def operator(input: torch.Tensor, *args: Any) -> torch.Tensor:
        return (theirs if input.is_cuda else ours)(input, *args)

    return operator


def _deform_conv(
    input: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, stride: Any, padding: Any, dilation: Any, *_: int
) -> torch.Tensor:
    """As detectron2's function of this name. Numbers of groups follow from the shapes.

    Args:
        input: float (N, C, h, w).
        offset: float (N, 2·G·k·k, h', w') in map positions, y before x for each tap.
        weight: float (D, C / groups, k, k).
        stride, padding, dilation: a number, or one an axis.

    Returns:
        float (N, D, h', w').
    """
    return deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def _modulated_deform_conv(
    input: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    *_: int,
) -> torch.Tensor:
    """As :func:`_deform_conv`, taps weighted by ``mask``, float (N, G·k·k, h', w')."""
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
