"""The optimizer of a config."""

from collections.abc import Callable
from typing import Any, Final

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch.optim import SGD, AdamW, Optimizer

__all__ = ["build_optimizer"]

Groups = list[dict[str, Any]]


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> Optimizer:
    """What ``SOLVER.OPTIMIZER`` names: detectron2's SGD, or AdamW with the same parameter groups and clipping.

    What is below the pyramid, ``bottom_up`` of detectron2's `FPN`, learns at ``SOLVER.BACKBONE_MULTIPLIER`` times the
    rate of the rest.

    Raises:
        ValueError: another name, or a ``BACKBONE_MULTIPLIER`` for a model without ``bottom_up``.
    """
    solver = cfg.SOLVER
    name = solver.get("OPTIMIZER", "SGD")
    if name not in _OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER must be one of {', '.join(_OPTIMIZERS)}, got {name!r}.")
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    factor = solver.get("BACKBONE_MULTIPLIER", 1.0)
    if factor != 1:
        groups = _with_slower_backbone(groups, model, factor)
    return maybe_add_gradient_clipping(cfg, _OPTIMIZERS[name](groups, solver))


_OPTIMIZERS: Final[dict[str, Callable[[Groups, CfgNode], Optimizer]]] = {
    "SGD": lambda groups, solver: SGD(
        groups,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    ),
    "ADAMW": lambda groups, solver: AdamW(groups, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY),
}


def _with_slower_backbone(groups: Groups, model: torch.nn.Module, factor: float) -> Groups:
    below = {id(p) for name, p in model.named_parameters() if "bottom_up." in name}
    if not below:
        raise ValueError(
            f"SOLVER.BACKBONE_MULTIPLIER is {factor:g}, but {type(model).__name__} has no backbone below a pyramid "
            "(`bottom_up`, as in detectron2's FPN). Set it to 1.0."
        )
    split = []
    for group in groups:
        slow = [p for p in group["params"] if id(p) in below]
        rest = [p for p in group["params"] if id(p) not in below]
        split += [{**group, "params": rest}] if rest else []
        split += [{**group, "params": slow, "lr": factor * group["lr"]}] if slow else []
    return split
