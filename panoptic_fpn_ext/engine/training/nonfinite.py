"""Steps whose losses or gradients are not finite: what they saw is named and kept, and after some in a row a training
stops while its weights are good.
"""

import logging
import math
import os
from collections.abc import Sequence

import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler
from detectron2.utils import comm

from ...data.train_loader import TrainLoader
from ...whole_files import whole_file
from ..checkpoints.checkpoint import PanopticCheckpointer
from .train_step import SkippedStep, TrainStep

__all__ = ["FOLDER", "NonFiniteSteps"]

logger = logging.getLogger(__name__)

FOLDER = "non_finite"
"""In the run's folder: ``iteration_*.pth``, for ``python -m panoptic_fpn_ext.engine.replay``."""

MOST_FILES = 3  # each has the size of the weights


class NonFiniteSteps(HookBase):
    """Reports what :class:`~panoptic_fpn_ext.engine.training.train_step.TrainStep` skips, in all processes.

    It belongs before the hooks that write checkpoints.
    """

    def __init__(self, step: TrainStep, checkpointer: PanopticCheckpointer, most: int) -> None:
        """
        Args:
            step: the trainer's.
            checkpointer: of the trainer; in its folder the reports go.
            most: ``SOLVER.MAX_NONFINITE_STEPS``, skipped steps in a row that end the training; 1 ends it at the first.
        """
        if most < 1:
            raise ValueError(f"SOLVER.MAX_NONFINITE_STEPS must be 1 or more, got {most}.")
        self._step = step
        self._checkpointer = checkpointer
        self._most = most
        self._in_row = 0

    def after_step(self) -> None:
        """Report a step that was skipped; ``FloatingPointError`` after too many in a row."""
        if self._step.skipped is None:
            self._in_row = 0
            return
        self._in_row += 1
        parts = comm.all_gather(self._step.skipped)
        path = self._save(parts) if comm.is_main_process() else ""
        what = f"Iteration {self.trainer.iter + 1}: {_describe(parts)}"
        if comm.is_main_process():
            look = f" To look into it: python -m panoptic_fpn_ext.engine.replay {path}" if path else ""
            logger.warning(f"{what} The step is skipped, the weights stay.{look}")
        if self._in_row >= self._most:
            self._stop(what)

    def _stop(self, what: str) -> None:
        iteration = self.trainer.iter
        for hook in self.trainer._hooks:
            if isinstance(hook, LRScheduler):  # it comes after this hook, and the checkpoint counts this iteration
                hook.after_step()
        self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        comm.synchronize()  # nobody leaves before the checkpoint is written
        raise FloatingPointError(
            f"{self._in_row} steps in a row were skipped (SOLVER.MAX_NONFINITE_STEPS = {self._most}). {what} The last "
            f"good weights are saved in {self._checkpointer.save_dir}. Usual causes: a learning rate that is too high "
            "(SOLVER.BASE_LR, SOLVER.WARMUP_ITERS), mixed precision, no SOLVER.CLIP_GRADIENTS."
        )

    def _save(self, parts: Sequence[SkippedStep]) -> str:
        """Write what a replay needs; "" if it cannot be replayed or written, or enough was."""
        loader = self.trainer.data_loader
        folder = os.path.join(self._checkpointer.save_dir, FOLDER)
        if not isinstance(loader, TrainLoader) or not self._checkpointer.save_dir:
            return ""
        path = os.path.join(folder, f"iteration_{self.trainer.iter:07d}.pth")
        content = {
            "model": self._checkpointer.model.state_dict(),
            "iteration": self.trainer.iter,
            "seed": loader.seed,
            "processes": len(parts),
            "losses": [part.losses for part in parts],
            "gradients": [part.gradients for part in parts],
            "images": [part.images for part in parts],
        }
        try:
            os.makedirs(folder, exist_ok=True)
            if len(os.listdir(folder)) >= MOST_FILES:
                return ""
            with whole_file(path, "wb") as f:
                torch.save(content, f)
        except (OSError, RuntimeError) as error:
            logger.warning(f"{path} could not be written ({error}).")
            return ""
        return path


def _describe(parts: Sequence[SkippedStep]) -> str:
    found = {f"{name} is {value}" for part in parts for name, value in part.losses.items() if not math.isfinite(value)}
    gradients = sorted({name for part in parts for name in part.gradients})
    if not found and gradients:
        more = f" and {len(gradients) - 1} more" if len(gradients) > 1 else ""
        found = {f"the gradient of {gradients[0]}{more} is not finite"}
    sources = [part for part in parts if not all(map(math.isfinite, part.losses.values()))] or parts
    images = [str(image.get("file_name", image.get("image_id"))) for part in sources for image in part.images]
    return f"{', '.join(sorted(found))}, with the images {', '.join(images)}."
