"""The light semantic branch of Panoptic FPN (paper section 4, figure 3).

Shapes: N images, C classes, F channels of a pyramid level, D = conv_dims, h, w at the common stride, H, W network
input.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from ..structures import IGNORE_LABEL
from .jaccard_loss import jaccard_loss
from .losses import upsampled_cross_entropy

__all__ = ["PanopticFPNSemSegHead", "logits_stride", "raw_logits"]

Fusion = Literal["sum", "concat"]


@SEM_SEG_HEADS_REGISTRY.register()
class PanopticFPNSemSegHead(nn.Module):
    """Brings each pyramid level to the common stride, joins them and predicts a class for each pixel.

    A level at stride s passes log2(s / common_stride) stages of 3×3 convolution → norm → ReLU → 2× bilinear
    upsampling; the level at the common stride passes one without upsampling. All levels have the last upsampling in
    common: it is linear, so they are joined before it. It serves both output spaces of
    :class:`~panoptic_fpn_ext.categories.PanopticCategories`, and detectron2's own `SemanticSegmentor`. With the sum the
    parameters are named as in detectron2's `SemSegFPNHead`, so checkpoints are exchangeable.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int = 128,
        common_stride: int = 4,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = "GN",
        ignore_value: int = IGNORE_LABEL,
        fusion: Fusion = "sum",
        jaccard_loss_weight: float = 0.0,
    ) -> None:
        """
        Args:
            input_shape: channels and stride of each level to use.
            num_classes: C, see ``PanopticCategories.num_sem_seg_classes``.
            conv_dims: D, width of the branch.
            common_stride: network input pixels per logit.
            loss_weight: λ_s of the paper.
            norm: of each convolution, as detectron2's `get_norm` takes it.
            ignore_value: target label that takes no part in the loss.
            fusion: ``"sum"`` or ``"concat"`` of the levels.
            jaccard_loss_weight: of :func:`~panoptic_fpn_ext.modeling.jaccard_loss.jaccard_loss` beside the cross
                entropy, before λ_s weights both.

        Raises:
            ValueError: no input level, a level finer than ``common_stride``, or an unknown ``fusion``.
        """
        super().__init__()
        levels = sorted(input_shape.items(), key=lambda item: item[1].stride or 0)
        if not levels or any((shape.stride or 0) < common_stride for _, shape in levels):
            raise ValueError(f"Every input level needs a stride ≥ common_stride = {common_stride}, got {dict(levels)}.")
        if fusion not in ("sum", "concat"):
            raise ValueError(f"MODEL.SEM_SEG_HEAD.FUSION must be 'sum' or 'concat', got {fusion!r}.")
        self.in_features = [name for name, _ in levels]
        self.fine_features = [name for name, shape in levels if shape.stride == common_stride]
        self.coarse_features = [name for name, shape in levels if shape.stride != common_stride]
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.jaccard_loss_weight = jaccard_loss_weight
        self.ignore_value = ignore_value
        self.fusion: Fusion = fusion
        for name, shape in levels:
            self.add_module(name, _scale_head(shape, conv_dims, common_stride, norm))
        width = conv_dims if fusion == "sum" else conv_dims * len(levels)
        self.predictor = Conv2d(width, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``cfg.MODEL.SEM_SEG_HEAD``; detectron2's keys keep their meaning."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {name: shape for name, shape in input_shape.items() if name in head.IN_FEATURES},
            "num_classes": head.NUM_CLASSES,
            "conv_dims": head.CONVS_DIM,
            "common_stride": head.COMMON_STRIDE,
            "loss_weight": head.LOSS_WEIGHT,
            "norm": head.NORM,
            "ignore_value": head.IGNORE_VALUE,
            "fusion": head.get("FUSION", "sum"),
            "jaccard_loss_weight": head.get("JACCARD_LOSS_WEIGHT", 0.0),
        }

    def forward(
        self, features: Mapping[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """
        Args:
            features: pyramid levels by name, float (N, F, H / stride, W / stride).
            targets: int64 (N, H, W), needed in training.

        Returns:
            In training ``(None, losses)``, in inference ``(logits, {})`` with float (N, C, H, W), as detectron2's
            heads do.
        """
        logits = self.layers(features)
        if self.training:
            if targets is None:
                raise ValueError("The semantic head needs targets in training; give the inputs a 'sem_seg'.")
            return None, self.losses(logits, targets)
        return F.interpolate(logits, scale_factor=self.common_stride, mode="bilinear", align_corners=False), {}

    def layers(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the common stride, float (N, C, h, w)."""
        groups = self.fine_features, self.coarse_features
        joined = [self._join_levels(names, features) for names in groups if names]
        if self.coarse_features:
            joined[-1] = F.interpolate(joined[-1], scale_factor=2, mode="bilinear", align_corners=False)
        return self.predictor(self._join(joined))

    def _join_levels(self, names: Iterable[str], features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One at a time, so that a sum needs no more than two maps: float (N, D, h, w), or half that size."""
        return self._join(self.get_submodule(name)(features[name]) for name in names)

    def _join(self, maps: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(maps), dim=1) if self.fusion == "concat" else functools.reduce(_add, maps)

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross entropy averaged over the labelled pixels of the batch; 0, with gradient 0, where none is labelled.

        With a ``jaccard_loss_weight``, ``loss_jaccard`` too.

        Args:
            logits: float (N, C, h, w) at the common stride.
            targets: int64 (N, H, W), class or ``ignore_value``.

        Raises:
            ValueError: a label outside [0, C), see :func:`~panoptic_fpn_ext.modeling.losses.upsampled_cross_entropy`.
        """
        loss = upsampled_cross_entropy(logits, targets, self.common_stride, self.ignore_value)
        losses = {"loss_sem_seg": loss * self.loss_weight}
        if self.jaccard_loss_weight:
            jaccard = jaccard_loss(logits, targets, self.common_stride, self.ignore_value)
            losses["loss_jaccard"] = jaccard * (self.jaccard_loss_weight * self.loss_weight)
        return losses


def raw_logits(head: Any, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits of any head of detectron2's registry before upsampling, float (N, C, h, w) at :func:`logits_stride`."""
    if hasattr(head, "layers"):
        logits: torch.Tensor = head.layers(features)
    else:
        logits, _ = head(features, None)
    return logits


def logits_stride(head: Any) -> int:
    """Network input pixels per logit of :func:`raw_logits`: heads without ``layers`` give full size."""
    return int(head.common_stride) if hasattr(head, "layers") else 1


def _add(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum of two new maps; without a backward pass nothing else needs the first."""
    return first + second if torch.is_grad_enabled() else first.add_(second)


def _scale_head(
    shape: ShapeSpec, conv_dims: int, common_stride: int, norm: str | Callable[[int], nn.Module] | None
) -> nn.Sequential:
    """Stages that bring one level to the common stride, or to twice that where the level is coarser."""
    assert shape.stride is not None and shape.channels is not None
    upsamplings = int(math.log2(shape.stride // common_stride))
    stages: list[nn.Module] = []
    channels = shape.channels
    for stage in range(max(1, upsamplings)):
        if stage > 0:
            stages.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        conv = Conv2d(
            channels,
            conv_dims,
            kernel_size=3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, conv_dims),
            activation=F.relu_ if norm else F.relu,
        )
        weight_init.c2_msra_fill(conv)
        stages.append(conv)
        channels = conv_dims
    return nn.Sequential(*stages)
