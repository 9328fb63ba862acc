"""The one learning rate schedule of detectron2 that does not reach the end of a training."""

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver.lr_scheduler import LRScheduler
from fvcore.common.param_scheduler import StepWithFixedGammaParamScheduler

__all__ = ["build_fixed_gamma_scheduler"]


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
