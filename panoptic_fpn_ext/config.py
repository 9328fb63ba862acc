"""Every key that this package adds to detectron2's config."""

import copy
from typing import Any, Final

from detectron2.config import CfgNode

__all__ = ["add_panoptic_fpn_ext_config"]


def add_panoptic_fpn_ext_config(cfg: CfgNode) -> None:
    """Add this package's keys to a config of detectron2's ``get_cfg()``; calling it twice changes nothing.

    detectron2's own keys (``MODEL.SEM_SEG_HEAD.*``, ``MODEL.PANOPTIC_FPN.*``) keep their names and defaults.
    """
    for key, value in _DEFAULTS.items():
        node = cfg
        *parts, name = key.split(".")
        for part in parts:
            node = node.setdefault(part, CfgNode())
        node.setdefault(name, copy.deepcopy(value))


_DEFAULTS: Final[dict[str, Any]] = {
    # Name in PANOPTIC_COMBINER_REGISTRY of what merges instances and semantics; the paper's by default.
    "MODEL.PANOPTIC_FPN.COMBINE.NAME": "HeuristicCombiner",
    # Semantic ids that stand for things and so never become stuff segments: (0,) where the semantic head predicts
    # "things as other", as on COCO; the ids of all things where it predicts all classes, as on Cityscapes.
    "MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS": (0,),
    # Weights of DINCombiner: box, everywhere and shape of its unary terms, then the CRF's kernels of positions and of
    # colours. `projects/din/learn_weights.py` learns them.
    "MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS": [1.0, 0.1, 1.0, 3.0, 4.0],
    # What inference returns of an image, and so computes; without "instances", only detections that can enter the
    # panoptic map get a mask. These three by default, as detectron2's PanopticFPN;
    # "sem_seg_labels" are the labels of "sem_seg" without logits at output size.
    "MODEL.PANOPTIC_FPN.OUTPUTS": ["panoptic_seg", "instances", "sem_seg"],
    # Random colours as SSD learns from them, and crops in which, if ten draws find one, no class has a larger share of
    # the labelled pixels (1 for no limit); the names are those of detectron2's PointRend. The paper uses both for its
    # largest semantic networks only.
    "INPUT.COLOR_AUG_SSD": False,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 1.0,
    # What detectron2's RandomSubsetTrainingSampler, and its two weighted samplers, read without declaring it: the share
    # of the training images to draw from, and pairs of a training dataset's name and how often its images are drawn.
    "DATALOADER.RANDOM_SUBSET_RATIO": 1.0,
    "DATASETS.TRAIN_REPEAT_FACTOR": [],
    # The paper's ablations (section 5.3): train the instance branch in even and the semantic branch in odd iterations,
    # so that each sees half of them; and give each branch half of the pyramid's channels for its own.
    "MODEL.PANOPTIC_FPN.ALTERNATE_LOSSES": False,
    "MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS": False,
    # How the semantic head joins the pyramid levels, "sum" or "concat"; the paper finds the sum no worse and cheaper.
    "MODEL.SEM_SEG_HEAD.FUSION": "sum",
    # Weight, beside the cross entropy and before LOSS_WEIGHT, of a loss that is 1 - IoU of each class in each image:
    # what stuff counts by in PQ.
    "MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT": 0.0,
    # Norm of EfficientNet-Lite, by the names of detectron2's `get_norm`. By default its ImageNet statistics stay as
    # they are, since a CPU's batches are too small to learn better ones.
    "MODEL.EFFICIENTNET_LITE.NORM": "FrozenBN",
    # How often training drops the last block of EfficientNet-Lite for an image, and earlier ones less often (stochastic
    # depth): small datasets are learnt by heart later.
    "MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE": 0.0,
    # The feature extractor of build_timm_fpn_backbone, by timm's name with or without a tag of weights; whether timm
    # loads these where MODEL.WEIGHTS is empty (train_net.py then records tag and pixels here and in MODEL.PIXEL_*);
    # and "FrozenBN" for batch norms with constant statistics, "" for all norms as they are.
    "MODEL.TIMM.NAME": "",
    "MODEL.TIMM.PRETRAINED": True,
    "MODEL.TIMM.NORM": "",
    # Whether a ResNet keeps only the inputs of its blocks in training and computes the rest again: less memory, more
    # time, same gradients.
    "MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS": False,
    # Micro-batches that a batch of SOLVER.IMS_PER_BATCH images is split into, for machines that cannot hold it.
    # Losses and gradients are averages over the micro-batches; the learning rate stays that of IMS_PER_BATCH.
    # SOLVER.AMP.ENABLED is detectron2's: float16 with scaled losses on a GPU, bfloat16 on a CPU.
    "SOLVER.ACCUMULATE_STEPS": 1,
    # The SOLVER.MAX_ITER that WARMUP_ITERS and STEPS are meant for: where MAX_ITER is another, both are scaled with it.
    # 0 leaves them as they are, as detectron2 does.
    "SOLVER.SCHEDULE_ITERS": 0,
    # Steps in a row whose losses or gradients are not finite, each of them skipped, that end a training.
    "SOLVER.MAX_NONFINITE_STEPS": 10,
    # Checkpoints with an iteration for a name that are kept, the newest ones; 0 keeps all.
    "SOLVER.CHECKPOINTS_TO_KEEP": 0,
    # The weights with the best figure so far are kept as model_best.pth: a name as metrics.json has it, such as
    # panoptic_seg/PQ (before it, the dataset's where several are evaluated), "" keeps none; and whether the largest or
    # the smallest is the best, "max" or "min".
    "SOLVER.BEST_CHECKPOINTER.METRIC": "",
    "SOLVER.BEST_CHECKPOINTER.MODE": "max",
    # Different images that may turn out to be unreadable while training before it stops; others take their place.
    "DATALOADER.MAX_UNREADABLE_IMAGES": 10,
    # The most pixels of an image or a panoptic PNG, refused before they are decoded; 0 for 178,956,970, Pillow's.
    "INPUT.MAX_IMAGE_PIXELS": 0,
    # How many images of each dataset, evenly spread, have their files checked before a training, 0 for none (the others
    # are checked as they are read); and whether segments that disagree with the PNG (ids, areas) are taken as they are.
    "DATASETS.CHECKED_IMAGES": 50,
    "DATASETS.ALLOW_ERRORS": False,
    # What the semantic head tells apart in datasets of --register and --data: "things_as_other", all things from each
    # stuff class, or "all_classes", each thing class too, as the paper does on Cityscapes. A trained model knows it.
    "DATASETS.SEM_SEG_SPACE": "things_as_other",
    # A running average of the weights, which is what is evaluated and what a checkpoint has as its model. DECAY 0.999
    # averages over about the last thousand iterations; at the beginning of a training over fewer.
    "SOLVER.EMA.ENABLED": False,
    "SOLVER.EMA.DECAY": 0.999,
    # "SGD" as in the paper, or "ADAMW", which learns faster from scratch in short runs.
    "SOLVER.OPTIMIZER": "SGD",
    # Learning rate of the backbone below the pyramid, as a share of that of the rest.
    "SOLVER.BACKBONE_MULTIPLIER": 1.0,
    # Evaluator of PQ: "PanopticQualityEvaluator" (streaming, with a table by class) or detectron2's
    # "COCOPanopticEvaluator".
    "TEST.PANOPTIC_EVALUATOR": "PanopticQualityEvaluator",
    # Whether each evaluation of PQ ends with a page that shows where the points went (``report.html`` beside its
    # results), as ``python -m panoptic_fpn_ext.report`` writes it.
    "TEST.REPORT": False,
}
