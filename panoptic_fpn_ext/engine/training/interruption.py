"""Ending a training on request: the iteration ends, a checkpoint is written, and the way to go on is said."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from ...command import Interrupted, command_line
from ..checkpoints.checkpoint import PanopticCheckpointer

__all__ = ["StopOnSignal", "with_stop"]

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def with_stop(found: list[HookBase | None], checkpointer: PanopticCheckpointer) -> list[HookBase | None]:
    """Hooks of a training with :class:`StopOnSignal` where it belongs: after the checkpoints, before evaluations."""
    place = next((i for i, hook in enumerate(found) if isinstance(hook, hooks.EvalHook)), len(found))
    return [*found[:place], StopOnSignal(checkpointer), *found[place:]]


class StopOnSignal(HookBase):
    """SIGINT (Ctrl-C) and SIGTERM end a training after the iteration that runs, with a checkpoint, in all processes.

    A second signal, and one outside the iterations, ends it at once.
    """

    def __init__(self, checkpointer: PanopticCheckpointer) -> None:
        """``checkpointer``: of the trainer."""
        self._checkpointer = checkpointer
        self._received = 0
        self._in_iteration = False
        self._former: dict[int, Any] = {}

    def before_train(self) -> None:
        """Begin to handle signals; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def after_train(self) -> None:
        """Handle signals as before: an evaluation that follows ends at once."""
        self._in_iteration = False
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def before_step(self) -> None:
        """From here on, a signal waits."""
        self._in_iteration = True

    def after_step(self) -> None:
        """End the training if any process was told to."""
        self._in_iteration = False
        number = max(comm.all_gather(self._received)) if comm.get_world_size() > 1 else self._received
        if not number:
            return
        iteration = self.trainer.iter
        self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        done = f"Stopped after iteration {iteration + 1} of {self.trainer.max_iter}, which is saved"
        if comm.is_main_process():
            logger.warning(f"{done}. To go on: {command_line('--resume')}")
        comm.synchronize()  # nobody leaves before the checkpoint is written
        raise Interrupted(number, f"{done}.")

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received or not self._in_iteration:
            raise Interrupted(number)
        self._received = number
