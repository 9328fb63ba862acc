"""When a model is not run but written down."""

import torch

__all__ = ["is_capturing_graph"]


def is_capturing_graph() -> bool:
    """Whether `torch.jit.trace`, `torch.compile`, `torch.export` or an ONNX exporter records what is computed.

    What a fast path decides from numbers (sizes, counts, time) would become part of the graph, and would be wrong for
    the next image. So all of them take detectron2's plain way then.
    """
    return bool(torch.jit.is_tracing() or torch.compiler.is_compiling())
