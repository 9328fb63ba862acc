from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from .panoptic_fpn_R_101_1x import dataloader, model, optimizer, train

train.max_iter = 270000
