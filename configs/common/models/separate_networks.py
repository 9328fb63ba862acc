"""Mask R-CNN and Semantic FPN, each with a backbone of its own."""

from panoptic_fpn_ext.modeling import SeparatePanopticNetworks

from .panoptic_fpn import model

model._target_ = SeparatePanopticNetworks
model.semantic_backbone = "${.backbone}"  # built like the other, not shared with it
model.sem_seg_head.loss_weight = 1.0  # as if trained apart: no parameter has both losses, which a weight could balance
