"""Trainings that can be interrupted anywhere and end with the same weights."""

import random
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..data.train_loader import TrainLoader

__all__ = ["ReproducibleIterations", "seed_iteration"]


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Random numbers of an iteration in one process, for all that the model draws."""
    words = np.random.SeedSequence((seed, iteration, rank)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002 - what detectron2 draws from
    torch.manual_seed(int(words[2]))


class ReproducibleIterations(HookBase):
    """Makes every iteration a function of the weights, the optimizer's state, a seed and its own number.

    The loader starts with the samples of the first iteration, and every iteration starts with random numbers of its
    own, so nothing that a run did before an interruption needs to be done again or known. The seed is part of the
    checkpoint. It belongs before all other hooks.
    """

    def __init__(self, loader: TrainLoader) -> None:
        """``loader``: the trainer's."""
        self._loader = loader

    def before_train(self) -> None:
        """The loader begins where the training does."""
        self._loader.start_iter = self.trainer.start_iter

    def before_step(self) -> None:
        """Random numbers of this iteration and process, for all that the model draws."""
        seed_iteration(self._loader.seed, self.trainer.iter, comm.get_rank())

    def state_dict(self) -> dict[str, Any]:
        """Part of the trainer's checkpoint."""
        return {"seed": self._loader.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`: a run goes on with the seed that it began with."""
        self._loader.seed = state_dict["seed"]
