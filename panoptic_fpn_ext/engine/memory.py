"""How much memory a piece of work takes."""

import os
import resource
import threading

import torch

__all__ = ["PeakMemory", "resident", "returning_memory"]


class PeakMemory:
    """Highest memory inside a ``with`` block, bytes: of a GPU what PyTorch allocated there, of a CPU what is resident,
    where a thread looks every two milliseconds.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.stopped = threading.Event()

    def __enter__(self) -> "PeakMemory":
        self.before = self.highest = torch.cuda.memory_allocated(self.device) if self.on_gpu else resident()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.on_gpu and not self.stopped.wait(0.002):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.watcher.join()
        if self.on_gpu:
            self.highest = torch.cuda.max_memory_allocated(self.device)


def returning_memory() -> dict[str, str]:
    """Environment of a process in which freed arrays go back to the system, so that what was used before does not hide
    what is used now; of glibc, which else keeps them the longer the larger they are.
    """
    return {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}


def resident() -> int:
    """Resident memory of this process, bytes."""
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * resource.getpagesize()
