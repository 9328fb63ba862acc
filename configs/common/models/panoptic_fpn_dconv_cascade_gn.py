"""Panoptic FPN with a deformable ResNet-101, cascaded boxes and group norm."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling.backbone.resnet import BottleneckBlock, DeformBottleneckBlock, ResNet

from .panoptic_fpn import model

model.backbone.norm = "GN"
model.backbone.bottom_up.stem.norm = "GN"
model.backbone.bottom_up.stages = [
    L(ResNet.make_stage)(
        block_class=DeformBottleneckBlock if stage else BottleneckBlock,
        num_blocks=num_blocks,
        stride_per_block=[2 if stage else 1] + [1] * (num_blocks - 1),
        in_channels=128 * 2**stage if stage else 64,
        bottleneck_channels=64 * 2**stage,
        out_channels=256 * 2**stage,
        norm="GN",
        stride_in_1x1=False,
    )
    for stage, num_blocks in enumerate((3, 4, 23, 3))
]
model.proposal_generator.post_nms_topk = (2000, 1000)
model.roi_heads = get_config("common/models/cascade_rcnn.py").model.roi_heads
model.roi_heads.mask_head.conv_norm = "GN"
