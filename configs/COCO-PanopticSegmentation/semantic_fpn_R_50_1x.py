from ..common.data.coco_stuff import dataloader
from ..common.models.semantic_fpn import model
from .panoptic_fpn_R_50_1x import lr_multiplier, optimizer, train
