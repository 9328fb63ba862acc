"""Going on with a training whose optimizer has changed since the checkpoint was written."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.solver import LRMultiplier

from .weight_average import WeightAverage, use_trained_weights

__all__ = ["Resumable", "fitting_state", "follow_schedule"]

logger = logging.getLogger(__name__)

# What versions of PyTorch add to the groups, and schedulers; the rest says which optimizer it is.
_INCIDENTAL = {"params", "initial_lr", "param_names", "foreach", "fused", "capturable", "differentiable", "maximize"}
_INCIDENTAL |= {"decoupled_weight_decay"}


_KEYS = {
    "learning rate": "SOLVER.BASE_LR, SOLVER.BIAS_LR_FACTOR, SOLVER.BACKBONE_MULTIPLIER",
    "weight_decay": "SOLVER.WEIGHT_DECAY, SOLVER.WEIGHT_DECAY_NORM, SOLVER.WEIGHT_DECAY_BIAS",
    "momentum": "SOLVER.MOMENTUM",
    "nesterov": "SOLVER.NESTEROV",
}


def fitting_state(state: Mapping[str, Any], trainer: Any) -> dict[str, Any]:
    """What a resumed trainer can load of the state that a checkpoint holds.

    If the optimizer's part is of another optimizer or of other parameters, the optimizer starts afresh, at the learning
    rate that the schedule has reached; a warning says so. All else goes on. Where the checkpoint's model is an average
    of the weights, and ``trainer`` does not average, it gets the weights that the training went on with.

    Args:
        state: ``state_dict()`` of the trainer that wrote the checkpoint: a `SimpleTrainer`'s, or a `DefaultTrainer`'s
            with a ``_trainer`` in it.
        trainer: a trainer of the same class, not trained yet.
    """
    hooks, step = dict(state.get("hooks", {})), dict(state.get("_trainer", state))
    if not any(isinstance(hook, WeightAverage) for hook in trainer._hooks):
        use_trained_weights(trainer.model, hooks.pop(WeightAverage.__qualname__, None))
    schedule = hooks.get("LRScheduler")
    own: dict[str, Any] = trainer.optimizer.state_dict()
    for group in own["param_groups"]:
        group.setdefault("initial_lr", group["lr"])  # schedules that begin later have not set it yet
    reason = _misfit(trainer.optimizer, step["optimizer"])
    if reason:
        logger.warning(f"{reason}: the optimizer starts afresh, without what it had gathered until this iteration.")
        _continue_schedule(own, step["optimizer"], schedule)
        step["optimizer"] = own
    else:
        _say_what_is_kept(own["param_groups"], step["optimizer"]["param_groups"], schedule)
    found = {**state, "_trainer": step} if "_trainer" in state else step
    return {**found, "hooks": hooks} if "hooks" in state else found


def follow_schedule(optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """Bring the learning rates of a checkpoint to where the schedule of the config is; a warning says so.

    Without this, the first iteration after a change of the schedule would be one of the old one.

    Args:
        optimizer: changed in place.
        scheduler: at the iteration to go on with; any but detectron2's `LRMultiplier` is left alone.
    """
    if not isinstance(scheduler, LRMultiplier):
        return
    former, rates = optimizer.param_groups[0]["lr"], scheduler.get_lr()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    if not math.isclose(former, rates[0], rel_tol=1e-9):
        logger.warning(
            f"The learning rate is {rates[0]:g} from here on, as the schedule of the config has it; in the checkpoint "
            f"it was {former:g}, as of another schedule (SOLVER.MAX_ITER, SOLVER.STEPS, …)."
        )


class Resumable:
    """A trainer as a checkpointer sees it, with :func:`fitting_state`; for trainers without that of their own."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """The trainer's."""
        state: dict[str, Any] = self._trainer.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._trainer.load_state_dict(fitting_state(state_dict, self._trainer))


def _say_what_is_kept(
    own: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]], schedule: Mapping[str, Any] | None
) -> None:
    """Warn of options of the optimizer that the config has changed: the checkpoint's hold."""
    bases = schedule["base_lrs"] if schedule else [group["initial_lr"] for group in own]
    pairs = [("learning rate", base, group["initial_lr"]) for base, group in zip(bases, own, strict=True)]
    options = sorted(set().union(*own) - _INCIDENTAL - {"lr"})
    pairs += [
        (name, theirs.get(name), ours.get(name)) for name in options for theirs, ours in zip(saved, own, strict=True)
    ]
    changed: dict[str, tuple[Any, Any]] = {}  # the first of each option
    for name, kept, wanted in pairs:
        if kept != wanted:
            changed.setdefault(name, (kept, wanted))
    for name, (kept, wanted) in changed.items():
        base = f"with a base of {kept:g}" if name == "learning rate" else f"{kept}"
        logger.warning(
            f"The {name.replace('_', ' ')} goes on as the checkpoint has it, {base}; that of the config, {wanted}, "
            f"holds for new trainings ({_KEYS.get(name, 'SOLVER.*')})."
        )


def _misfit(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> str:
    """Why an optimizer cannot load a state, "" if it can."""
    groups, theirs = optimizer.param_groups, saved["param_groups"]
    kinds = [set().union(*one) - _INCIDENTAL for one in (groups, theirs)]
    if kinds[0] != kinds[1]:
        return "The checkpoint is of another optimizer (SOLVER.OPTIMIZER)"
    if [len(g["params"]) for g in groups] != [len(g["params"]) for g in theirs]:
        return "The checkpoint trained other parameters (MODEL.BACKBONE.FREEZE_AT, or groups of SOLVER.*)"
    parameters = [p for group in groups for p in group["params"]]
    indices = [index for group in theirs for index in group["params"]]
    for parameter, index in zip(parameters, indices, strict=True):
        tensors = [v for v in saved["state"].get(index, {}).values() if isinstance(v, torch.Tensor) and v.ndim]
        if any(tensor.shape != parameter.shape for tensor in tensors):
            return "The checkpoint trained parameters of other shapes"
    return ""


def _continue_schedule(own: dict[str, Any], saved: Mapping[str, Any], schedule: dict[str, Any] | None) -> None:
    """Bring a fresh optimizer's state to where the schedule is, and the schedule to the optimizer's rates."""
    if schedule is None:
        return
    reached = saved["param_groups"][0]["lr"] / (schedule["base_lrs"][0] or 1.0)
    for group in own["param_groups"]:
        group["lr"] = group["initial_lr"] * reached
    schedule["base_lrs"] = [group["initial_lr"] for group in own["param_groups"]]
