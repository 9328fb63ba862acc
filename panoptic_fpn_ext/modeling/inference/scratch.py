"""Memory that stays, for maps that do not.

The C library gives large tensors back to the system as soon as they are freed, and the first touch of new ones takes
longer than most of what is done with them. So each thread keeps one piece of memory for maps that are made, read
and forgotten within one call.
"""

import threading

import torch

__all__ = ["scratch"]

# Larger ones are made anew, so that one large batch does not take memory for good.
_MOST_KEPT = 2**28

_kept = threading.local()


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
