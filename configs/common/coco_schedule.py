"""Learning rate on COCO as a multiple of the optimizer's, for runs of ``train.max_iter`` iterations."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

_schedules = get_config("common/coco_schedule.py")
# Of 90,000 and 270,000 iterations of 16 images.
lr_multiplier_1x, lr_multiplier_3x = _schedules.lr_multiplier_1x, _schedules.lr_multiplier_3x

# As many images as 3×, in 135,000 batches of 32; as many iterations to warm up.
lr_multiplier_3x_batch_32 = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=[105000, 125000, 135000]),
    warmup_length=1000 / 135000,
    warmup_method="linear",
    warmup_factor=0.001,
)
