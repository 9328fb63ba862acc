"""What ``lazyconfig_train_net.py`` reads beside the objects that a config describes."""

from detectron2.model_zoo import get_config

# output_dir, init_checkpoint, max_iter, amp, ddp, checkpointer, eval_period, log_period, device
train = get_config("common/train.py").train
train.output_dir = "output"
train.eval_period = 0  # every training ends with an evaluation
train.seed = -1  # as SEED

# Micro-batches of a batch, as SOLVER.ACCUMULATE_STEPS.
train.accumulate_steps = 1

# As DATASETS.CHECKED_IMAGES: images of each dataset whose files are checked before the training.
train.checked_images = 50

# As DATASETS.SEM_SEG_SPACE: "all_classes" makes the semantic head of --register's datasets tell things apart too.
train.sem_seg_space = "things_as_other"

# As SOLVER.CLIP_GRADIENTS: of each parameter by "value" or by "norm".
train.clip_gradients = {"enabled": False, "clip_type": "norm", "clip_value": 1.0, "norm_type": 2.0}

# As SOLVER.MAX_NONFINITE_STEPS.
train.max_nonfinite_steps = 10

# As SOLVER.BEST_CHECKPOINTER: the figure whose best weights are kept as model_best.pth, such as "panoptic_seg/PQ".
train.best_checkpointer = {"val_metric": "", "mode": "max"}

# As TEST.AUG: evaluations, and the one that ends a training, also see each image in these views.
train.test_aug = {"enabled": False, "min_sizes": [400, 500, 600, 700, 800, 900, 1000, 1100, 1200]}
train.test_aug.update({"max_size": 4000, "flip": True})

# As SOLVER.EMA: a running average of the weights is what is evaluated, and the model of every checkpoint.
train.ema = {"enabled": False, "decay": 0.999}
