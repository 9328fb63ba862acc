"""Backbones beside detectron2's own. Importing it registers them."""

from .efficientnet_lite import (
    EfficientNetLite,
    build_efficientnet_lite0_fpn_backbone,
    build_efficientnet_lite2_fpn_backbone,
)
from .narrow_resnet import build_narrow_resnet_backbone, build_narrow_resnet_fpn_backbone, make_narrow_resnet
from .timm_features import TimmBackbone, build_timm_fpn_backbone

__all__ = [
    "EfficientNetLite",
    "TimmBackbone",
    "build_efficientnet_lite0_fpn_backbone",
    "build_efficientnet_lite2_fpn_backbone",
    "build_narrow_resnet_backbone",
    "build_narrow_resnet_fpn_backbone",
    "build_timm_fpn_backbone",
    "make_narrow_resnet",
]
