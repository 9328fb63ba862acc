from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from ..common.data.coco_panoptic import dataloader
from ..common.models.panoptic_fpn_narrow import model
from ..common.optim import AdamW as optimizer
from ..common.train import train

model.roi_heads.num_classes = 4
model.sem_seg_head.num_classes = 8
model.sem_seg_head.loss_weight = 1.0
model.combiner.stuff_area_threshold = 128  # the dataset has no stuff segments below 150 px

dataloader.train.dataset.names = "synthetic_street_train"
dataloader.test.dataset.names = "synthetic_street_val"
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[200, 220, 240, 260, 280], max_size=448)
dataloader.test.mapper.augmentations[0].update(short_edge_length=240, max_size=384)
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = dataloader.test.num_workers = 0  # reading these images costs less than a process

optimizer.lr, optimizer.weight_decay = 0.002, 0.02
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=100 / 5000,
    warmup_method="linear",
    warmup_factor=0.001,
)

train.max_iter = 5000
train.eval_period = 2500
train.test_aug.update(min_sizes=[200, 240, 280], max_size=448)
train.checkpointer.period = 250
train.clip_gradients.update(enabled=True, clip_value=5.0)
train.output_dir = "output/synthetic_street/panoptic_fpn_R_18_narrow"
