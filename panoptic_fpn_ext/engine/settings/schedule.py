"""Learning rate schedules: as a share of a training, and detectron2's one that does not reach the end of it."""

from collections.abc import Collection

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver.lr_scheduler import LRScheduler
from fvcore.common.param_scheduler import StepWithFixedGammaParamScheduler

__all__ = ["build_fixed_gamma_scheduler", "scale_schedule"]


def scale_schedule(cfg: CfgNode, fixed: Collection[str] = ()) -> None:
    """Let ``SOLVER.WARMUP_ITERS`` and ``SOLVER.STEPS`` follow ``SOLVER.MAX_ITER``; see ``SOLVER.SCHEDULE_ITERS``.

    Calling it again changes nothing. A frozen ``cfg`` stays frozen.

    Args:
        cfg: changed in place.
        fixed: keys that were set for this very ``MAX_ITER``, and stay.
    """
    solver = cfg.SOLVER
    written_for = solver.get("SCHEDULE_ITERS", 0)
    if written_for in (0, solver.MAX_ITER) or solver.MAX_ITER < 1:  # that is refused elsewhere, under its own name
        return
    frozen = cfg.is_frozen()
    cfg.defrost()
    scale = solver.MAX_ITER / written_for
    if "SOLVER.WARMUP_ITERS" not in fixed:
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS * scale)
    if "SOLVER.STEPS" not in fixed:
        solver.STEPS = tuple(round(step * scale) for step in solver.STEPS)
    solver.SCHEDULE_ITERS = solver.MAX_ITER
    if frozen:
        cfg.freeze()


class _FixedGammaToTheEnd(StepWithFixedGammaParamScheduler):
    """The base class has one value too few: it has none for the end, which is looked up after the last iteration."""

    def __call__(self, where: float) -> float:
        return super().__call__(min(where, 1 - 2 * self.WHERE_EPSILON))


def build_fixed_gamma_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """``SOLVER.LR_SCHEDULER_NAME WarmupStepWithFixedGammaLR`` as detectron2's `build_lr_scheduler` makes it.

    detectron2's raises ``IndexError`` at the end of the last iteration, before the last checkpoint is written.
    """
    solver = cfg.SOLVER
    steps = _FixedGammaToTheEnd(
        base_value=1.0, gamma=solver.GAMMA, num_decays=solver.NUM_DECAYS, num_updates=solver.MAX_ITER
    )
    with_warmup = WarmupParamScheduler(
        steps,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=with_warmup, max_iter=solver.MAX_ITER)
