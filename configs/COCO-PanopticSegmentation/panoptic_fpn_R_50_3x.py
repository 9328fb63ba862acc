from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from .panoptic_fpn_R_50_1x import dataloader, model, optimizer, train

train.max_iter = 270000
