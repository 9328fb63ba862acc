"""Semantic FPN alone."""

from detectron2.config import LazyCall as L
from detectron2.modeling import SemanticSegmentor

from .panoptic_fpn import model as _panoptic

model = L(SemanticSegmentor)(
    backbone=_panoptic.backbone,
    sem_seg_head=_panoptic.sem_seg_head,
    pixel_mean=_panoptic.pixel_mean,
    pixel_std=_panoptic.pixel_std,
)
model.sem_seg_head.loss_weight = 1.0  # nothing to weigh it against
