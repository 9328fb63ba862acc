"""What ``model.half()`` and ``model.bfloat16()`` need besides weights of that precision."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["in_weights_precision"]


def in_weights_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a model's method: makes it work with weights of float16 or bfloat16 too.

    Layers then compute in that precision, and boxes, scores and RoIs in float32, as with autocast; so no coordinate is
    rounded. With weights of float32 nothing changes.
    """

    @functools.wraps(method)
    def wrapped(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _autocast(model):
            return method(model, *args, **kwargs)

    return wrapped


def _autocast(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    weight = next(model.parameters())
    if weight.dtype == torch.float32:
        return contextlib.nullcontext()
    if weight.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"{type(model).__name__} has weights of {weight.dtype}, but detectron2 computes boxes in float32: use "
            "model.float(), or model.half() or model.bfloat16() to predict."
        )
    if model.training:
        raise ValueError(
            f"{type(model).__name__} has weights of {weight.dtype}, whose updates would be rounded away: train it in "
            "float32 (model.float()), with SOLVER.AMP.ENABLED for mixed precision."
        )
    return torch.autocast(weight.device.type, dtype=weight.dtype)
