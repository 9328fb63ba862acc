"""How far a training is, for whoever watches it."""

import logging
import time
from datetime import timedelta

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

__all__ = ["ProgressWriter"]

logger = logging.getLogger(__name__)

FIRST = 10
"""Iteration of the first line: then the time of an iteration is known."""
LONGEST_SILENCE_S = 300
WINDOW = 20


class ProgressWriter(EventWriter):
    """A line with losses and the time left: at the start, at each tenth of a training, and every five minutes.

    To be called in each iteration. detectron2's own lines, every 20 iterations, are in ``log.txt``.
    """

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._next_tenth = 0
        self._last_time = time.monotonic()
        self._written = -1

    def write(self) -> None:
        """Write a line, if one is due."""
        storage = get_event_storage()
        done = storage.iter + 1
        if not self._is_due(done):
            return
        self._next_tenth = 10 * done // self._max_iter + 1
        self._last_time, self._written = time.monotonic(), done
        logger.info(
            f"Iteration {done} of {self._max_iter}: {_losses(storage)}{_time_left(storage, self._max_iter - done)}"
        )

    def _is_due(self, done: int) -> bool:
        if done <= self._written or done > self._max_iter:
            return False
        if done == self._max_iter or time.monotonic() - self._last_time >= LONGEST_SILENCE_S:
            return True
        return done - max(self._written, 0) >= FIRST and 10 * done >= self._next_tenth * self._max_iter


def _losses(storage: EventStorage) -> str:
    medians = {
        name: history.median(storage.count_samples(name, WINDOW))
        for name, history in storage.histories().items()
        if "loss" in name
    }
    parts = ", ".join(f"{k.removeprefix('loss_')} {v:.2f}" for k, v in medians.items() if k != "total_loss")
    return f"loss {medians.get('total_loss', float('nan')):.2f} ({parts})"


def _time_left(storage: EventStorage, iterations: int) -> str:
    if "time" not in storage.histories():
        return ""
    seconds = storage.history("time").median(1000)
    left = timedelta(seconds=round(seconds * iterations))
    return f", {seconds:.2f} s an iteration" + (f", {left} left" if iterations else "")
