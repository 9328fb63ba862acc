"""When a model is not run but written down."""

from typing import Any

import torch

__all__ = ["is_capturing_graph", "whole_number"]


def is_capturing_graph() -> bool:
    """Whether `torch.jit.trace`, `torch.compile`, `torch.export` or an ONNX exporter records what is computed.

    What a fast path decides from numbers (sizes, counts, time) would become part of the graph, and would be wrong for
    the next image. So all of them take detectron2's plain way then.
    """
    return bool(torch.jit.is_tracing() or torch.compiler.is_compiling())


def whole_number(length: Any) -> Any:
    """An int; while a graph is captured the length as it is, since an int would be a constant of the graph."""
    return length if is_capturing_graph() else int(length)
