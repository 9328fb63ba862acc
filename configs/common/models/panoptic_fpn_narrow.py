"""Panoptic FPN with a ResNet-18 of half its width and all other widths to match: small enough for a CPU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from panoptic_fpn_ext.modeling.backbone import make_narrow_resnet

from .panoptic_fpn import model

model.pixel_mean, model.pixel_std = [110.0, 110.0, 110.0], [60.0, 60.0, 60.0]
model.backbone.bottom_up = L(make_narrow_resnet)(
    depth=18,
    stem_channels=32,
    res2_channels=32,
    norm="BN",
    out_features=["res2", "res3", "res4", "res5"],
    freeze_at=0,
)
model.backbone.out_channels = 64
model.backbone.norm = "GN"

rpn = model.proposal_generator
rpn.head.in_channels = 64
rpn.head.conv_dims = [64]
rpn.anchor_generator.sizes = [[16], [32], [64], [128], [224]]
rpn.pre_nms_topk, rpn.post_nms_topk = (400, 200), (200, 100)

heads = model.roi_heads
heads.batch_size_per_image = 64
heads.box_pooler.sampling_ratio = heads.mask_pooler.sampling_ratio = 2
heads.box_head.input_shape = ShapeSpec(channels=64, height=7, width=7)
heads.box_head.fc_dims = [256, 256]
heads.box_predictor.input_shape = ShapeSpec(channels=256)
heads.mask_head.input_shape = ShapeSpec(channels=64, height=14, width=14)
heads.mask_head.conv_dims = [64, 64, 64]
model.sem_seg_head.conv_dims = 64
