from ..common.coco_schedule import lr_multiplier_3x_batch_32 as lr_multiplier
from ..common.data.coco_panoptic import dataloader
from ..common.models.panoptic_fpn_dconv_cascade_gn import model
from ..common.optim import SGD as optimizer
from ..common.train import train

dataloader.train.total_batch_size = 32
optimizer.lr = 0.04
train.max_iter = 135000
train.init_checkpoint = "catalog://ImageNetPretrained/FAIR/R-101-GN"
