"""Training a backbone of detectron2 in less time and memory, with the same results and parameter names."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.backbone import FPN, ResNet
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpoint_activations", "normalize_in_place", "use_inplace_frozen_bn"]


class InPlaceFrozenBatchNorm2d(FrozenBatchNorm2d):
    """`FrozenBatchNorm2d` that, in training, overwrites its input: the same sums without two more tensors of its size.

    Only for an input that nothing else needs, such as what a convolution gives: its backward pass does not look at its
    output.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the parent, with float (N, C, H, W)."""
        if not x.requires_grad or x.is_leaf or x.dtype != self.weight.dtype:
            result: torch.Tensor = super().forward(x)
            return result
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x.mul_(scale.reshape(1, -1, 1, 1)).add_(bias.reshape(1, -1, 1, 1))


def use_inplace_frozen_bn(backbone: nn.Module, checkpoint: bool) -> None:
    """:func:`normalize_in_place` and, if asked for, :func:`checkpoint_activations`."""
    normalize_in_place(backbone)
    if checkpoint:
        checkpoint_activations(backbone)


def normalize_in_place(module: nn.Module) -> None:
    """Let every frozen batch norm that follows a convolution of a module overwrite the convolution's result."""
    for conv in module.modules():
        if isinstance(conv, Conv2d) and type(conv.norm) is FrozenBatchNorm2d:
            # A change of class keeps names, buffers and isinstance() as they are.
            conv.norm.__class__ = InPlaceFrozenBatchNorm2d


def checkpoint_activations(backbone: nn.Module) -> None:
    """Let a ResNet keep only the inputs of its blocks in training and compute the rest again in the backward pass.

    Losses and gradients stay the same; a training step takes about a third more of the backbone's time.

    Args:
        backbone: detectron2's `ResNet`, or an `FPN` on top of one.

    Raises:
        ValueError: another backbone, or batch norms that learn statistics (which each block would update twice).
    """
    resnet = backbone.bottom_up if isinstance(backbone, FPN) else backbone
    if not isinstance(resnet, ResNet):
        raise ValueError(
            f"MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS works with ResNets, got {type(resnet).__name__}; set it to False."
        )
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in resnet.modules()):
        raise ValueError(
            "MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS would update the statistics of batch norms twice a step: set "
            "it to False, or "
            f"MODEL.RESNETS.NORM to 'FrozenBN' or 'GN' (got {resnet.__class__.__name__} with learning batch norms)."
        )
    for stage in resnet.stages:
        for block in stage:
            block.forward = functools.partial(_checkpointed, type(block).forward, block)


def _checkpointed(forward: Callable[..., Any], block: nn.Module, x: torch.Tensor) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, x)
    return checkpoint(forward, block, x, use_reentrant=False)
