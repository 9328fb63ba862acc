"""Memory of outputs, used again once nobody has the former ones.

A system hands out memory page by page and clears each: on a CPU, large outputs cost more for that than for their
computation. PyTorch keeps freed memory of a GPU for the next tensor, of a CPU it does not.
"""

import math
import threading
import weakref
from typing import Any

import torch

__all__ = ["OutputMemory"]


class OutputMemory:
    """Keeps the memory of the last output of each name, and hands it out again when that output is gone.

    A tensor of it belongs to whoever has it, like any other; as long as the tensor, a view of it or its NumPy array
    lives, the next one gets memory of its own. Copies and pickles of this object are empty.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[torch.Tensor, weakref.ref[Any]]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A contiguous tensor whose values are not set. On other devices than a CPU it is a plain new one."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            memory, former = self._kept.get(name, (None, None))
            # Much more than is needed is given back.
            if memory is None or former is None or former() is not None or not size <= memory.numel() <= 2 * size:
                self._kept.pop(name, None)
                memory = former = None  # before there is new one
                memory = torch.empty(size, dtype=torch.uint8)
            handle = memory.numpy()  # lives as long as the tensor that is made of it
            self._kept[name] = memory, weakref.ref(handle)
            return torch.from_numpy(handle)[:size].view(dtype).view(shape)

    def clear(self) -> None:
        """Give back what is kept."""
        with self._lock:
            self._kept.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputMemory, ()
