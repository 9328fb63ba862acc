from ..common.models.separate_networks import model
from .panoptic_fpn_R_50_1x import dataloader, lr_multiplier, optimizer, train
