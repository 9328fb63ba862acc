"""Evaluations within a training: none is lost to an interruption, and the best weights so far are kept."""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.engine import TrainerBase, hooks
from detectron2.utils import comm

from ...structures import UnreadableFileError
from ...whole_files import whole_file
from ..checkpoints.checkpoint import PanopticCheckpointer
from ..settings.config_keys import did_you_mean

__all__ = ["BEST", "Best", "PeriodicEvaluation", "tolerant"]

logger = logging.getLogger(__name__)

BEST = "model_best"
"""Name of the checkpoint with the best weights, as of detectron2's `BestCheckpointer`."""
FINAL = "model_final"
"""Name of the checkpoint at the end, as of detectron2's `PeriodicCheckpointer`."""


class Best(NamedTuple):
    """Which weights are the best.

    Attributes:
        metric: name of a figure as ``metrics.json`` has it, ``panoptic_seg/PQ``; "" keeps none.
        mode: whether the largest or the smallest is the best, ``"max"`` or ``"min"``.
    """

    metric: str = ""
    mode: str = "max"

    def is_better(self, value: float, former: float | None) -> bool:
        """Whether a figure is better than the best one so far; one that is not finite never is."""
        if not math.isfinite(value):
            return False
        return former is None or (value > former if self.mode == "max" else value < former)


def tolerant(evaluate: Callable[[], Any], trainer: TrainerBase) -> Callable[[], Any]:
    """An evaluation that ends a training with its error only where it is the last one; else it gives {}."""

    def evaluate_or_go_on() -> Any:
        try:
            return evaluate()
        except UnreadableFileError as error:
            if trainer.iter + 1 >= trainer.max_iter:
                raise
            logger.error(f"{error} The training goes on.")
            return {}

    return evaluate_or_go_on


class PeriodicEvaluation(hooks.EvalHook):
    """detectron2's `EvalHook`; an evaluation during which a training was killed is done when the training goes on.

    A checkpoint is written before the evaluation of its weights, so what came of the last one that ended is in a file
    beside it, ``last_evaluation.json``.

    With ``best.metric``, the weights whose figure is the best so far are in ``model_best.pth``, as of
    `BestCheckpointer`; that figure is part of every checkpoint, and ``last_checkpoint`` keeps naming the last one.
    """

    def __init__(
        self, period: int, evaluate: Callable[[], Any], checkpointer: PanopticCheckpointer, best: Best | None = None
    ) -> None:
        """
        Args:
            period: iterations from one evaluation to the next, 0 for one at the end alone.
            evaluate: gives a nested dict of figures.
            checkpointer: of the trainer.
            best: which weights are to be kept.
        """
        super().__init__(period, evaluate)
        self._checkpointer = checkpointer
        self._best = best or Best()
        self._evaluated: int | None = None  # iterations before the last evaluation
        self._value: float | None = None
        self._best_at: int | None = None
        self._best_of = self._best._asdict()

    def before_train(self) -> None:
        """Make up for what should have followed the checkpoint: a last one, ``model_final.pth``; an evaluation."""
        start = self.trainer.start_iter
        if 0 < self.trainer.max_iter <= start:
            logger.info(f"Nothing is left to train: {start} iterations are done, of {self.trainer.max_iter}.")
            went_on_from = Path(self._checkpointer.get_checkpoint_file()).stem
            if went_on_from != FINAL and comm.is_main_process():
                self._save(FINAL, start)
        is_due = self._period > 0 and start % self._period == 0 and 0 < start < self.trainer.max_iter
        ended = self._last_ended()
        if ended.get("evaluated") == start and ended.get("best_of") == self._best_of:
            self._evaluated, self._value, self._best_at = ended["evaluated"], ended["best"], ended["best_at"]
        if is_due and self._evaluated is not None and self._evaluated < start:
            logger.info(f"The evaluation after iteration {start} was interrupted: it is done now.")
            self.trainer.iter = self.trainer.storage.iter = start - 1  # as in the step that it belongs to
            self._do_eval()
            self.trainer.iter = self.trainer.storage.iter = start

    def state_dict(self) -> dict[str, Any]:
        """Part of the trainer's checkpoint."""
        best = {"best": self._value, "best_at": self._best_at, "best_of": self._best_of}
        return {"evaluated": self._evaluated or 0, **best}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._evaluated = state_dict["evaluated"]
        now, then = self._best._asdict(), state_dict.get("best_of", self._best._asdict())
        if now == then or state_dict["best"] is None:
            self._value, self._best_at = state_dict["best"], state_dict["best_at"]
        elif not self._best.metric:
            self._value, self._best_at, self._best_of = state_dict["best"], state_dict["best_at"], then
            logger.warning(f"{BEST}.pth, the best by {_named(then)}, stays as it is: SOLVER.BEST_CHECKPOINTER is off.")
        else:
            logger.warning(
                f"{BEST}.pth was the best by {_named(then)}. Now it is to be the best by {_named(now)}, and begins "
                "anew."
            )

    def _do_eval(self) -> None:
        super()._do_eval()
        # After the last iteration, detectron2 counts one more.
        self._evaluated = min(self.trainer.iter + 1, self.trainer.max_iter)
        if comm.is_main_process():
            if self._best.metric:
                self._keep_best(self._evaluated)
            if self._checkpointer.save_dir and self._note.parent.is_dir():  # where checkpoints go to a disk
                with whole_file(self._note) as f:
                    json.dump(self.state_dict(), f)

    @property
    def _note(self) -> Path:
        return Path(self._checkpointer.save_dir, "last_evaluation.json")

    def _last_ended(self) -> dict[str, Any]:
        """The state after the last evaluation that ended, empty if it is not known; the same in all processes."""
        state: Any = {}
        if comm.is_main_process() and self._note.is_file():
            with contextlib.suppress(ValueError):
                state = json.loads(self._note.read_text(encoding="utf-8"))
        found: list[Any] = comm.all_gather(state)
        return found[0] if isinstance(found[0], dict) else {}

    def _keep_best(self, iterations: int) -> None:
        storage, metric = self.trainer.storage, self._best.metric
        found = {k: value for k, (value, at) in storage.latest().items() if at == storage.iter and "/" in k}
        if metric not in found:
            if found:
                logger.error(
                    f"The evaluation has no {metric} (SOLVER.BEST_CHECKPOINTER.METRIC), so {BEST}.pth is not written."
                    f"{did_you_mean(metric, found)} There are {', '.join(found)}."
                )
            return
        value = float(found[metric])
        if not self._best.is_better(value, self._value):
            logger.info(f"{metric} is {value:.3f}, the best is {_text(self._value)} after {self._best_at} iterations.")
            return
        logger.info(f"{metric} is {value:.3f}, the best so far (before: {_text(self._value)}).")
        self._value, self._best_at = value, iterations
        self._save(BEST, iterations, is_last=False)

    def _save(self, name: str, iterations: int, **options: Any) -> None:
        """Write a checkpoint from which a training can go on after so many iterations."""
        now, self.trainer.iter = self.trainer.iter, iterations - 1
        self._checkpointer.save(name, iteration=iterations - 1, **options)
        self.trainer.iter = now


def _named(best: Mapping[str, Any]) -> str:
    return f"{best['metric'] or 'nothing'} ({best['mode']})"


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
