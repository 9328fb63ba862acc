"""Trainings that can be interrupted anywhere and end with the same weights."""

import logging
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ...data.train_loader import TrainLoader

__all__ = ["IterationSeeds", "ReproducibleIterations"]

logger = logging.getLogger(__name__)

# Methods of detectron2's RPN and ROI heads, each called once an image.
_DRAWS = ("_subsample_labels", "_sample_proposals")


class IterationSeeds:
    """Random numbers for all that a model draws in an iteration.

    What detectron2's RPN and ROI heads draw for one image, the anchors and proposals to learn from, depends on the
    image's place in the batch and not on the process that computes it: so any number of processes trains the same.
    """

    def __init__(self, model: nn.Module) -> None:
        """``model``: its parts draw as said until :meth:`remove`."""
        self._parts = [(m, name) for m in model.modules() for name in _DRAWS if hasattr(m, name)]
        for part, (module, name) in enumerate(self._parts):
            setattr(module, name, self._by_image(part, getattr(module, name)))

    def begin(self, seed: int, iteration: int, rank: int, share: int) -> None:
        """Seed an iteration in process ``rank``, whose batch has ``share`` images."""
        words = _words(seed, iteration, rank, count=3)
        random.seed(words[0])
        np.random.seed(words[1])  # noqa: NPY002 - what detectron2 draws from
        torch.manual_seed(words[2])
        self._iteration = (seed, iteration)
        self._next = [rank * share] * len(self._parts)

    def remove(self) -> None:
        """Leave the model as it was."""
        for module, name in self._parts:
            delattr(module, name)

    def _by_image(self, part: int, draw: Callable[..., Any]) -> Callable[..., Any]:
        def draws(*args: Any, **kwargs: Any) -> Any:
            image = self._next[part]
            self._next[part] += 1
            torch.manual_seed(_words(*self._iteration, image, part, count=1)[0])
            return draw(*args, **kwargs)

        return draws


def _words(*numbers: int, count: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(numbers).generate_state(count)]


class ReproducibleIterations(HookBase):
    """Makes every iteration a function of the weights, the optimizer's state, a seed and its own number.

    The loader starts with the samples of the first iteration, and every iteration starts with random numbers of its
    own, so nothing that a run did before an interruption needs to be done again or known. The seed is part of the
    checkpoint. It belongs before all other hooks.
    """

    def __init__(self, loader: TrainLoader, model: nn.Module) -> None:
        """``loader`` and ``model``: the trainer's."""
        self._loader = loader
        self._model = model

    def before_train(self) -> None:
        """The loader begins where the training does."""
        self._loader.start_iter = self.trainer.start_iter
        self._seeds = IterationSeeds(self._model)

    def before_step(self) -> None:
        """Random numbers of this iteration, for all that the model draws."""
        share = self._loader.identity["batch_size"] // comm.get_world_size()
        self._seeds.begin(self._loader.seed, self.trainer.iter, comm.get_rank(), share)

    def after_train(self) -> None:
        """The model draws as before."""
        self._seeds.remove()

    def state_dict(self) -> dict[str, Any]:
        """Part of the trainer's checkpoint."""
        return {"seed": self._loader.seed, **self._loader.identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`: a run goes on with the seed that it began with.

        A warning says where its samples are not those of the run that wrote the checkpoint.
        """
        self._loader.seed = state_dict["seed"]
        then, now = {**self._loader.identity, **state_dict}, self._loader.identity
        if (then["images"], then["dataset"]) != (now["images"], now["dataset"]):
            count = f"{then['images']} images" if then["images"] != now["images"] else "other images, or segments"
            logger.warning(
                f"The training data are not those that the checkpoint was trained on: there were {count}, now there "
                f"are {now['images']} images. The training goes on with these; some images may be seen more often."
            )
        if then["batch_size"] != now["batch_size"]:
            logger.warning(
                f"SOLVER.IMS_PER_BATCH was {then['batch_size']} and is {now['batch_size']}: the order of images is not "
                "the one of a run without this change."
            )
