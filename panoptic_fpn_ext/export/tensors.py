"""What a graph needs of tensors: sizes, since an int that a tracer meets becomes a constant, and loops."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["Size", "as_dimensions", "at_most", "is_program", "length", "scripted"]

Size = Any
"""A length as int64 (), or in `torch.export` a symbol; PyTorch's type hints want an int where a tracer passes it."""


def is_program() -> bool:
    """Whether `torch.export` records what is computed; other exporters trace."""
    return torch.compiler.is_exporting()


def length(x: torch.Tensor, dim: int) -> Size:
    """Size of a dimension."""
    size: Any = x.shape[dim]  # a tensor while a graph is traced
    return size if isinstance(size, torch.Tensor) or is_program() else torch.tensor(size)


def as_dimensions(sizes: Sequence[torch.Tensor]) -> list[Size]:
    """Lengths as what tensors are made with: `torch.export` reads a number off a tensor once, and names it."""
    if not is_program():
        return list(sizes)
    numbers: list[Size] = [size.item() for size in sizes]  # int() would make them constants
    for number in numbers:
        torch._check(number >= 1)
    return numbers


def at_most(size: Size, most: int) -> Size:
    """The smaller of a size and a number."""
    return size.clamp(max=most) if isinstance(size, torch.Tensor) else torch.sym_min(size, most)


def scripted(function: Callable[..., Any]) -> Any:
    """Compile a function whose loops and slices a tracer would unroll or freeze."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # PyTorch's, that TorchScript will go; the exporter still needs it
        return torch.jit.script(function)
