"""ResNet-18 and -34 at any width: detectron2's own builder allows 64 channels only, too many for a small checkpoint."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

__all__ = ["build_narrow_resnet_backbone", "build_narrow_resnet_fpn_backbone"]

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@BACKBONE_REGISTRY.register()
def build_narrow_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """A ResNet of basic blocks with ``RES2_OUT_CHANNELS`` channels in res2 and twice as many in each later stage.

    Args:
        cfg: ``MODEL.RESNETS`` gives ``DEPTH`` (18 or 34), ``RES2_OUT_CHANNELS``, ``STEM_OUT_CHANNELS``, ``NORM`` and
            ``OUT_FEATURES``; ``MODEL.BACKBONE.FREEZE_AT`` keeps detectron2's meaning.
        input_shape: channels of the picture.

    Raises:
        ValueError: another depth.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in _BLOCKS:
        raise ValueError(f"MODEL.RESNETS.DEPTH must be one of {sorted(_BLOCKS)} for basic blocks, got {resnets.DEPTH}.")
    channels, stages = resnets.STEM_OUT_CHANNELS, []
    for stage, num_blocks in enumerate(_BLOCKS[resnets.DEPTH]):
        width = resnets.RES2_OUT_CHANNELS * 2**stage
        first_stride = 1 if stage == 0 else 2
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks,
                stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                in_channels=channels,
                out_channels=width,
                norm=resnets.NORM,
            )
        )
        channels = width
    stem = BasicStem(in_channels=input_shape.channels, out_channels=resnets.STEM_OUT_CHANNELS, norm=resnets.NORM)
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


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
