"""What a graph needs of tensors: sizes, since an int that a tracer meets becomes a constant, and loops."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Size", "length", "scripted"]

Size = Any
"""A length as int64 (); PyTorch's type hints want an int where a tracer passes it."""


def length(x: torch.Tensor, dim: int) -> Size:
    """Size of a dimension, int64 ()."""
    size: Any = x.shape[dim]  # a tensor while a graph is traced
    return size if isinstance(size, torch.Tensor) else torch.tensor(size)


def scripted(function: Callable[..., Any]) -> Any:
    """Compile a function whose loops and slices a tracer would unroll or freeze."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # PyTorch's, that TorchScript will go; the exporter still needs it
        return torch.jit.script(function)
