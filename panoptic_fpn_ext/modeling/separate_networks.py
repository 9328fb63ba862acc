"""Two networks, what Panoptic FPN is compared with (Panoptic FPN, section 5.2, "R50-FPN ×2")."""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone import Backbone
from detectron2.structures import ImageList

from .acceleration import accelerate_training
from .branches import Branches, Features
from .panoptic_fpn import PanopticFPNExt

__all__ = ["SEMANTIC_BACKBONE", "SeparatePanopticNetworks", "join_state_dicts"]

SEMANTIC_BACKBONE = "semantic_backbone."
"""Prefix of the parameters of the Semantic FPN's backbone; in a network of its own it is ``backbone.``."""


@META_ARCH_REGISTRY.register()
class SeparatePanopticNetworks(PanopticFPNExt):
    """A Mask R-CNN and a Semantic FPN, each with a backbone of its own, merged by the same combiner.

    It takes the configs of :class:`PanopticFPNExt`; both backbones are built from them. No parameter is shared, so
    training it is training two networks side by side, and :func:`join_state_dicts` makes it of two that were trained
    apart. The Mask R-CNN's parameters have the names of `GeneralizedRCNN`, the Semantic FPN's those of
    `SemanticSegmentor`, its backbone's under ``semantic_backbone``.
    """

    @configurable
    def __init__(self, *, semantic_backbone: Backbone, **kwargs: Any) -> None:
        """
        Args:
            semantic_backbone: of the Semantic FPN, with the levels and the ``size_divisibility`` of ``backbone``.
            kwargs: arguments of :class:`PanopticFPNExt`; ``backbone`` is the Mask R-CNN's.

        Raises:
            ValueError: backbones that want different paddings, or a key that needs a shared pyramid.
        """
        super().__init__(**kwargs)
        self.semantic_backbone = accelerate_training(semantic_backbone, kwargs.get("checkpoint_activations", False))
        if semantic_backbone.size_divisibility != self.backbone.size_divisibility:
            raise ValueError(
                "Both backbones must want the same size_divisibility, got "
                f"{self.backbone.size_divisibility} and {semantic_backbone.size_divisibility}."
            )
        if self.split_fpn_channels:
            raise ValueError(
                "MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS splits a shared pyramid, and SeparatePanopticNetworks has none; "
                "set it to False."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """As the parent's, with a second backbone of the same config."""
        ret: dict[str, Any] = super().from_config(cfg)
        return {**ret, "semantic_backbone": build_backbone(cfg)}

    def _features(self, images: ImageList, branches: Branches) -> tuple[Features, Features]:
        return (
            self.backbone(images.tensor) if branches.instances else {},
            self.semantic_backbone(images.tensor) if branches.semantics else {},
        )


def join_state_dicts(
    instance_network: Mapping[str, torch.Tensor], semantic_network: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Parameters of :class:`SeparatePanopticNetworks` of two networks that were trained apart.

    Args:
        instance_network: of a Mask R-CNN, names as in `GeneralizedRCNN`. A Panoptic FPN's will do; its semantic head
            is left out.
        semantic_network: of a Semantic FPN, names as in `SemanticSegmentor`. A Panoptic FPN's will do; of it only
            backbone and semantic head are taken.
    """
    joined = {name: value for name, value in instance_network.items() if not name.startswith("sem_seg_head.")}
    for name, value in semantic_network.items():
        if name.startswith("backbone."):
            joined[SEMANTIC_BACKBONE + name.removeprefix("backbone.")] = value
        elif name.startswith("sem_seg_head."):
            joined[name] = value
    return joined
