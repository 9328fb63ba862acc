"""EfficientNet-Lite0 and -Lite2: backbones that a CPU can train.

Of the EfficientNets (Tan and Le, 2019) the Lite ones have ReLU6 for swish and no squeeze-and-excitation. ImageNet
weights come from a package, see :mod:`panoptic_fpn_ext.engine.imagenet_weights`.

Shapes: N images, C channels, h, w size of a feature map.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.utils import comm
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

__all__ = [
    "EfficientNetLite",
    "build_efficientnet_lite0_fpn_backbone",
    "build_efficientnet_lite2_fpn_backbone",
    "same_padding",
]

_STEM_CHANNELS = 32
# Stages of table 1 of the paper, at width and depth 1: kernel size, stride, expansion, channels, blocks.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# Stages after which a map is taken, at strides 4, 8, 16 and 32, named as in ResNets: FPN configs need no other names.
_OUTPUTS = {1: "res2", 2: "res3", 4: "res4", 6: "res5"}
# Factors of channels and of blocks, with which the Lite networks scale all stages (blocks not of the first and last).
_VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2), "lite3": (1.2, 1.4), "lite4": (1.4, 1.8)}
# As TensorFlow has it, where the weights were trained.
_NORM_EPS = 1e-3


class EfficientNetLite(Backbone):
    """An EfficientNet-Lite without its classifier.

    Its maps are ``res2`` to ``res5``, at strides 4, 8, 16 and 32, of 24, 40, 112 and 320 channels for Lite0, of 24, 48,
    120 and 352 for Lite2. With the ImageNet weights it expects RGB images, (x - 127) / 128.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        variant: str = "lite0",
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        drop_path_rate: float = 0.0,
    ) -> None:
        """
        Args:
            in_channels: of the image.
            variant: ``"lite0"`` to ``"lite4"``: how wide and deep.
            out_features: names of the maps to return.
            norm: ``"FrozenBN"`` for constant statistics and scales, which small batches need, or any other of
                detectron2's `get_norm`.
            freeze_at: the stages that do not learn: 0 none, 1 the stem, n ≥ 2 all up to and including ``res{n}``.
            drop_path_rate: how often, in training, an image takes the shortcut around the last block alone (stochastic
                depth, Huang et al., 2016); around the first never, around those between as often as they are deep.

        Raises:
            ValueError: an unknown variant or name in ``out_features``, ``freeze_at`` outside 0…5, or
                ``drop_path_rate`` outside 0…1.
        """
        super().__init__()
        unknown = set(out_features) - set(_OUTPUTS.values())
        if unknown or not 0 <= freeze_at <= 5 or variant not in _VARIANTS or not 0 <= drop_path_rate <= 1:
            raise ValueError(
                f"EfficientNetLite has variants {list(_VARIANTS)}, maps {list(_OUTPUTS.values())}, freeze_at 0…5 and "
                f"drop_path_rate 0…1; got variant {variant!r}, out_features {list(out_features)}, freeze_at "
                f"{freeze_at}, drop_path_rate {drop_path_rate}."
            )
        self.stem = SameConv2d(in_channels, _STEM_CHANNELS, 3, stride=2, norm=norm, activation=nn.ReLU6())
        stages = _stages(variant, norm, drop_path_rate)
        self.blocks = nn.ModuleList(block for stage in stages for block in stage)
        ends = [end - 1 for end in accumulate(len(stage) for stage in stages)]
        self._last_blocks = {name: ends[i] for i, name in _OUTPUTS.items()}
        # What the parent's `output_shape` reads.
        self._out_features = list(out_features)
        self._out_feature_channels = {name: stages[i][-1].project.out_channels for i, name in _OUTPUTS.items()}
        self._out_feature_strides = {name: 2 ** int(name[-1]) for name in _OUTPUTS.values()}
        self._freeze(freeze_at)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            x: normalised images, float (N, 3, h, w).

        Returns:
            The maps of ``out_features``, float (N, C, ⌈h / stride⌉, ⌈w / stride⌉). In training on a CPU they have
            channels last, in which gradients of depthwise convolutions take less time. Not where several processes
            train: PyTorch sums gradients of the usual layout.
        """
        if self.training and x.device.type == "cpu" and comm.get_world_size() == 1:
            x = x.contiguous(memory_format=torch.channels_last)
        outputs = {}
        names = {index: name for name, index in self._last_blocks.items() if name in self._out_features}
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in names:
                outputs[names[index]] = x
        return outputs

    def _freeze(self, freeze_at: int) -> None:
        last = self._last_blocks.get(f"res{freeze_at}", -1)
        for module in [self.stem, *self.blocks[: last + 1]] if freeze_at else []:
            module.requires_grad_(False)


class SameConv2d(Conv2d):
    """Convolution → norm → activation, without bias, padded as TensorFlow's ``"SAME"``: h becomes ⌈h / stride⌉."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        norm: str,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            # Where nothing is skipped, the padding has two equal sides, and the convolution does it itself.
            padding=kernel_size // 2 if stride == 1 else 0,
            groups=groups,
            bias=False,
            norm=get_norm(norm, out_channels),
            activation=activation,
        )
        if hasattr(self.norm, "eps"):
            self.norm.eps = _NORM_EPS
        weight_init.c2_msra_fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (N, C, h, w) → float (N, C', ⌈h / stride⌉, ⌈w / stride⌉)."""
        if self.stride[0] > 1:
            top, bottom = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
            left, right = same_padding(x.shape[-1], self.kernel_size[0], self.stride[0])
            x = F.pad(x, (left, right, top, bottom))
        if self.groups > 1 and x.device.type == "cpu" and self.weight.dtype == torch.float32:
            # Autocast would take bfloat16, in which a CPU needs four times as long for gradients of kernels of 5×5.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Widen → depthwise convolution → narrow, plus the input where its shape is kept (MobileNetV2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        expansion: int,
        norm: str,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = (
            SameConv2d(in_channels, width, 1, norm=norm, activation=nn.ReLU6()) if expansion > 1 else nn.Identity()
        )
        self.depthwise = SameConv2d(
            width, width, kernel_size, stride=stride, groups=width, norm=norm, activation=nn.ReLU6()
        )
        self.project = SameConv2d(width, out_channels, 1, norm=norm)
        self.drop_path = StochasticDepth(drop_path_rate, "row") if self.has_shortcut else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float (N, C, h, w) → float (N, C', ⌈h / stride⌉, ⌈w / stride⌉)."""
        y = self.drop_path(self.project(self.depthwise(self.expand(x))))
        return x + y if self.has_shortcut else y


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels of padding, before and after, with which ``size`` becomes ⌈size / stride⌉; an odd one goes after."""
    total = max(kernel_size - (size % stride or stride), 0)
    return total // 2, total - total // 2


def _stages(variant: str, norm: str, drop_path_rate: float) -> list[list[InvertedResidual]]:
    width, depth = _VARIANTS[variant]
    stages: list[list[InvertedResidual]] = []
    channels = _STEM_CHANNELS
    lengths = [ceil(depth * row[-1]) if 0 < i < len(_STAGES) - 1 else row[-1] for i, row in enumerate(_STAGES)]
    last = sum(lengths) - 1
    rates = (drop_path_rate * index / last for index in range(last + 1))
    for (kernel_size, stride, expansion, out_channels, _), length in zip(_STAGES, lengths, strict=True):
        out_channels = _whole_eights(width * out_channels)
        stage = []
        for i in range(length):
            block = InvertedResidual(
                channels if i == 0 else out_channels,
                out_channels,
                kernel_size=kernel_size,
                stride=stride if i == 0 else 1,
                expansion=expansion,
                norm=norm,
                drop_path_rate=next(rates),
            )
            stage.append(block)
        stages.append(stage)
        channels = out_channels
    return stages


def _whole_eights(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth smaller, as TensorFlow rounds scaled channels."""
    nearest = int(channels + 4) // 8 * 8
    return nearest if nearest >= 0.9 * channels else nearest + 8


@BACKBONE_REGISTRY.register()
def build_efficientnet_lite0_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN over EfficientNet-Lite0, with a coarser level for the RPN.

    It reads ``MODEL.EFFICIENTNET_LITE``, ``MODEL.BACKBONE.FREEZE_AT`` and ``MODEL.FPN``.
    """
    return _fpn(cfg, input_shape, "lite0")


@BACKBONE_REGISTRY.register()
def build_efficientnet_lite2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """As :func:`build_efficientnet_lite0_fpn_backbone`, over EfficientNet-Lite2."""
    return _fpn(cfg, input_shape, "lite2")


def _fpn(cfg: CfgNode, input_shape: ShapeSpec, variant: str) -> FPN:
    bottom_up = EfficientNetLite(
        input_shape.channels or 3,
        variant=variant,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        norm=cfg.MODEL.EFFICIENTNET_LITE.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        drop_path_rate=cfg.MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
