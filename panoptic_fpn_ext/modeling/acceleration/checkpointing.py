"""Activations of ResNets that are computed again instead of kept."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone, ResNet
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpoint_resnets"]


def checkpoint_resnets(model: nn.Module) -> None:
    """Let the ResNets of a model keep only the inputs of their blocks in training and compute the rest again in the
    backward pass.

    Losses and gradients stay the same; a training step takes about a third more of the backbone's time.

    Args:
        model: all its backbones are detectron2's `ResNet`, by themselves or below a pyramid; it is changed.

    Raises:
        ValueError: another backbone, or batch norms that learn statistics (which each block would update twice).
    """
    for backbone in _lowest_backbones(model) or [model]:
        _check(backbone)
        for stage in backbone.stages:
            for block in stage:
                block.forward = functools.partial(_checkpointed, type(block).forward, block)


def _lowest_backbones(model: nn.Module) -> list[Any]:
    """Backbones that do not stand on another one, as a pyramid does."""
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    return [one for one in backbones if not any(other in one.modules() for other in backbones if other is not one)]


def _check(backbone: nn.Module) -> None:
    kind = type(backbone).__name__
    if not isinstance(backbone, ResNet):
        raise ValueError(f"MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS works with ResNets, got {kind}; set it to False.")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        raise ValueError(
            "MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS would update the statistics of batch norms twice a step: set "
            f"it to False, or MODEL.RESNETS.NORM to 'FrozenBN' or 'GN' (got {kind} with learning batch norms)."
        )


def _checkpointed(forward: Callable[..., Any], block: nn.Module, x: torch.Tensor) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, x)
    return checkpoint(forward, block, x, use_reentrant=False)
