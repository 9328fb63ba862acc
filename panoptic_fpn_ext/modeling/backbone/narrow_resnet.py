"""ResNet-18 and -34 at any width: detectron2's own builder allows 64 channels only, too many for a small checkpoint."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

__all__ = ["build_narrow_resnet_backbone", "build_narrow_resnet_fpn_backbone", "make_narrow_resnet"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def make_narrow_resnet(
    *,
    depth: int,
    stem_channels: int,
    res2_channels: int,
    norm: str,
    out_features: Sequence[str],
    freeze_at: int = 0,
    in_channels: int = 3,
) -> ResNet:
    """A ResNet of basic blocks with ``res2_channels`` channels in res2 and twice as many in each later stage.

    Args:
        depth: 18 or 34.
        stem_channels: of the stem.
        res2_channels: of the first stage.
        norm: of each convolution, by the names of detectron2's `get_norm`.
        out_features: which of ``stem`` and ``res2`` to ``res5`` it gives.
        freeze_at: as ``MODEL.BACKBONE.FREEZE_AT``: how many of stem and stages are not trained.
        in_channels: of the image.

    Raises:
        ValueError: another depth.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"MODEL.RESNETS.DEPTH must be one of {sorted(_BLOCKS)} for basic blocks, got {depth}.")
    channels, stages = stem_channels, []
    for stage, num_blocks in enumerate(_BLOCKS[depth]):
        width = res2_channels * 2**stage
        first_stride = 1 if stage == 0 else 2
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks,
                stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                in_channels=channels,
                out_channels=width,
                norm=norm,
            )
        )
        channels = width
    stem = BasicStem(in_channels=in_channels, out_channels=stem_channels, norm=norm)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)


@BACKBONE_REGISTRY.register()
def build_narrow_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """:func:`make_narrow_resnet` from ``MODEL.RESNETS`` (``DEPTH``, ``STEM_OUT_CHANNELS``, ``RES2_OUT_CHANNELS``,
    ``NORM``, ``OUT_FEATURES``) and ``MODEL.BACKBONE.FREEZE_AT``, for images with the channels of ``input_shape``.
    """
    resnets = cfg.MODEL.RESNETS
    return make_narrow_resnet(
        depth=resnets.DEPTH,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        norm=resnets.NORM,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels or 3,
    )


@BACKBONE_REGISTRY.register()
def build_narrow_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """:func:`build_narrow_resnet_backbone` with a feature pyramid p2 … p6, as detectron2's
    ``build_resnet_fpn_backbone``.
    """
    return FPN(
        bottom_up=build_narrow_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
