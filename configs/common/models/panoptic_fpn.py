"""Panoptic FPN with a ResNet-50, for COCO: 80 things, 53 stuff classes and "other"."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from panoptic_fpn_ext.modeling import HeuristicCombiner, PanopticFPNExt, PanopticFPNSemSegHead

model = get_config("common/models/panoptic_fpn.py").model
model._target_ = PanopticFPNExt
model.backbone.bottom_up.freeze_at = 2
model.sem_seg_head._target_ = PanopticFPNSemSegHead  # λ_s is its loss_weight, 0.5
model.sem_seg_head.fusion = "sum"
model.instance_loss_weight = 1.0  # λ_i
model.outputs = ["panoptic_seg", "instances", "sem_seg"]
model.combiner = L(HeuristicCombiner)(
    overlap_threshold=0.5,
    stuff_area_threshold=4096,
    instance_score_threshold=0.5,
    thing_sem_seg_ids=[0],
    sem_seg_stride="${..sem_seg_head.common_stride}",
)
