"""``SOLVER.EMA``: a running average of the weights, which is what is evaluated and released."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from detectron2.engine import HookBase
from torch import nn

__all__ = ["WeightAverage", "use_trained_weights"]

logger = logging.getLogger(__name__)

_TRAINED: Final = "trained"
_UPDATES: Final = "updates"


class WeightAverage(HookBase):
    """An exponential moving average of everything that a model learns, updated after each iteration.

    With ``d`` the smaller of the decay and (1 + n) / (10 + n) at the n-th update, the average becomes d · average +
    (1 - d) · weights: so it forgets the first weights fast. Statistics of batch norms are averaged in the same way;
    counters are taken as they are.

    A checkpoint has the average under ``model``, for all who evaluate, predict or fine-tune, and the weights that the
    training goes on with in the state of this hook: a run is resumed with both as they were, bit by bit. The hook
    belongs before all that write checkpoints.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: the one that is trained, or its ``DistributedDataParallel``.
            decay: in [0, 1); 0.999 averages over about the last thousand iterations.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"SOLVER.EMA.DECAY (train.ema.decay) must be at least 0 and below 1, got {decay}.")
        self._model = _unwrapped(model)
        self._decay = decay
        self._updates = 0
        self._average: dict[str, torch.Tensor] = {}

    def before_train(self) -> None:
        """The average begins as the weights, unless it was resumed."""
        if not self._average:
            self._average = _copied(self._model.state_dict())
        logger.info(
            f"Weights are averaged (SOLVER.EMA, decay {self._decay:g}): every evaluation, and `model` in every "
            "checkpoint, model_final.pth too, is the average. The weights that training goes on with are in `trainer`."
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in the weights of this iteration."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        floats: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                floats[0].append(self._average[name])
                floats[1].append(value)
            else:
                self._average[name].copy_(value)
        torch._foreach_lerp_(*floats, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the average for its weights."""
        if not self._average:
            yield
            return
        trained = _copied(self._model.state_dict())
        _load(self._model, self._average)
        try:
            yield
        finally:
            _load(self._model, trained)

    def model_state(self) -> dict[str, torch.Tensor]:
        """The average, by the names of ``model.state_dict()``."""
        return self._average or self._model.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Part of the trainer's checkpoint, whose ``model`` is :meth:`model_state`."""
        return {_UPDATES: self._updates, _TRAINED: self._model.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, once the checkpoint's ``model`` was loaded into the model."""
        self._average = _copied(self._model.state_dict())
        self._updates = state_dict[_UPDATES]
        _load(self._model, state_dict[_TRAINED])


def use_trained_weights(model: nn.Module, state: Mapping[str, Any] | None) -> None:
    """Give a model the weights that a training with an average goes on with, of that hook's state (None: no such hook).

    For a training that is resumed without the average.
    """
    if state is None:
        return
    logger.info("The checkpoint's model is an average of the weights (SOLVER.EMA); the training goes on without it.")
    _load(_unwrapped(model), state[_TRAINED])


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _copied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def _load(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        value.copy_(state[name])
