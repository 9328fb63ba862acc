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
    """Hooks of a training with :class:`StopOnSignal` where it belongs: after the checkpoints, around evaluations."""
    place = next((i for i, hook in enumerate(found) if isinstance(hook, hooks.EvalHook)), len(found))
    stop = StopOnSignal(checkpointer)
    return [*found[:place], stop, *found[place : place + 1], _AfterEvaluation(stop), *found[place + 1 :]]


class StopOnSignal(HookBase):
    """SIGINT (Ctrl-C) and SIGTERM end a training after the iteration that runs, or the next one between two, with a
    checkpoint, in all processes.

    A second signal, and one before the iterations, after them or while the model is evaluated, ends it at once.
    """

    def __init__(self, checkpointer: PanopticCheckpointer) -> None:
        """``checkpointer``: of the trainer."""
        self._checkpointer = checkpointer
        self._received = 0
        self.waits = False
        self._former: dict[int, Any] = {}

    def before_train(self) -> None:
        """Begin to handle signals; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def after_train(self) -> None:
        """Handle signals as before: an evaluation that follows ends at once."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self._received and self.trainer.iter >= self.trainer.max_iter:  # told when the last iteration was done
            raise Interrupted(self._received)

    def before_step(self) -> None:
        """From here on, a signal waits."""
        self.waits = True

    def after_step(self) -> None:
        """End the training if any process was told to; else an evaluation may follow."""
        number = max(comm.all_gather(self._received)) if comm.get_world_size() > 1 else self._received
        if not number:
            self.waits = False
            return
        iteration = self.trainer.iter
        self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        done = f"Stopped after iteration {iteration + 1} of {self.trainer.max_iter}, which is saved"
        if comm.is_main_process():
            logger.warning(f"{done}. To go on: {command_line('--resume')}")
        comm.synchronize()  # nobody leaves before the checkpoint is written
        raise Interrupted(number, f"{done}.")

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received or not self.waits:
            raise Interrupted(number)
        self._received = number


class _AfterEvaluation(HookBase):
    """From here to the next iteration, too, a signal waits: what logs and counts is done before it begins."""

    def __init__(self, stop: StopOnSignal) -> None:
        self._stop = stop

    def after_step(self) -> None:
        self._stop.waits = True
