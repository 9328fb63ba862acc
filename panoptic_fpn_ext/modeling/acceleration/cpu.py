"""What the faster modules share: when they may compute another way, and memory that is used again and again.

The C library gives large tensors back to the system as soon as they are freed, and the first touch of new ones is
slow. So each thread keeps one piece of memory for maps that are made, read and forgotten within one call.
"""

import threading

import torch

from ..graph_capture import is_capturing_graph

__all__ = ["is_float32_on_cpu", "is_usual", "scratch"]

# Larger ones are made anew, so that one large batch does not take memory for good.
_MOST_KEPT = 2**28

_kept = threading.local()


def is_float32_on_cpu(x: torch.Tensor) -> bool:
    """Whether an input, not empty, is computed with as it is: in its own precision, by an eager CPU."""
    is_float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return not is_capturing_graph() and is_float32 and x.device.type == "cpu" and x.numel() > 0


def is_usual(x: torch.Tensor) -> bool:
    """Whether an input is what inference is made faster for: float32 on a CPU, not empty, no gradient."""
    return is_float32_on_cpu(x) and not x.requires_grad


def scratch(*shape: int) -> torch.Tensor:
    """Uninitialised float32 on a CPU; what the same thread got before may be overwritten, whatever its shape."""
    size = torch.Size(shape).numel()
    if 4 * size > _MOST_KEPT:
        return _empty(size).view(shape)
    if getattr(_kept, "memory", None) is None or _kept.memory.numel() < size:
        _kept.memory = None  # before there is more
        _kept.memory = _empty(size)
    memory: torch.Tensor = _kept.memory
    return memory[:size].view(shape)


@torch.inference_mode(False)
def _empty(size: int) -> torch.Tensor:
    """What is made in inference mode could not be written to outside of it."""
    return torch.empty(size, dtype=torch.float32, device="cpu")
