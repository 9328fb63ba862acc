"""Backbones that small models need; importing it registers them with detectron2."""

from .narrow_resnet import build_narrow_resnet_backbone, build_narrow_resnet_fpn_backbone

__all__ = ["build_narrow_resnet_backbone", "build_narrow_resnet_fpn_backbone"]
