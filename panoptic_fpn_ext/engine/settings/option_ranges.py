"""Which numbers detectron2's keys and this package's take; `options.py` applies them.

A key of numbers that is not here takes any, or has a rule of its own in `option_rules.py` or `silent_keys.py`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

__all__ = ["RANGES", "Range", "numbers"]


class Range(NamedTuple):
    """What a number must be, in words and as a check, which nan does not pass."""

    words: str
    holds: Callable[[float], bool]


def _at_least(least: float) -> Range:
    return Range(f"at least {least:g}", lambda value: least <= value < math.inf)


_ABOVE_0 = Range("above 0", lambda value: 0 < value < math.inf)
_SHARE = Range("from 0 to 1", lambda value: 0 <= value <= 1)
_SHARE_ABOVE_0 = Range("above 0 and at most 1", lambda value: 0 < value <= 1)
_SHARE_BELOW_1 = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
_CHANNELS = Range("at least 1, or -1 for as many as come in", lambda value: value == -1 or 1 <= value < math.inf)
_NORM = Range("above 0", lambda value: value > 0)  # inf is the largest of all
_SEED = Range("below 2**32", lambda value: value < 2**32)

_GROUPS: Final[tuple[tuple[Range, str], ...]] = (
    (
        _at_least(0),
        """
        DATALOADER.MAX_UNREADABLE_IMAGES DATALOADER.NUM_WORKERS DATALOADER.REPEAT_THRESHOLD DATASETS.CHECKED_IMAGES
        INPUT.MAX_IMAGE_PIXELS INPUT.MIN_SIZE_TEST
        MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS
        MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT MODEL.PROPOSAL_GENERATOR.MIN_SIZE
        MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_BOX_HEAD.NUM_FC
        MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA MODEL.ROI_MASK_HEAD.NUM_CONV
        MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO MODEL.RPN.BBOX_REG_LOSS_WEIGHT MODEL.RPN.LOSS_WEIGHT
        MODEL.RPN.SMOOTH_L1_BETA MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT MODEL.SEM_SEG_HEAD.LOSS_WEIGHT
        SOLVER.BACKBONE_MULTIPLIER SOLVER.BASE_LR_END SOLVER.BIAS_LR_FACTOR SOLVER.CHECKPOINTS_TO_KEEP
        SOLVER.MAX_NONFINITE_STEPS SOLVER.REFERENCE_WORLD_SIZE SOLVER.SCHEDULE_ITERS SOLVER.STEPS
        SOLVER.WARMUP_FACTOR SOLVER.WARMUP_ITERS SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_BIAS
        SOLVER.WEIGHT_DECAY_NORM TEST.EVAL_PERIOD VIS_PERIOD
        """,
    ),
    (
        _at_least(1),
        """
        INPUT.MAX_SIZE_TEST INPUT.MAX_SIZE_TRAIN MODEL.FPN.OUT_CHANNELS MODEL.RESNETS.DEFORM_NUM_GROUPS
        MODEL.RESNETS.NUM_GROUPS MODEL.RESNETS.RES2_OUT_CHANNELS MODEL.RESNETS.STEM_OUT_CHANNELS
        MODEL.RESNETS.WIDTH_PER_GROUP MODEL.ROI_BOX_HEAD.CONV_DIM MODEL.ROI_BOX_HEAD.FC_DIM
        MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE MODEL.ROI_MASK_HEAD.CONV_DIM
        MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION MODEL.RPN.BATCH_SIZE_PER_IMAGE MODEL.RPN.POST_NMS_TOPK_TEST
        MODEL.RPN.POST_NMS_TOPK_TRAIN MODEL.RPN.PRE_NMS_TOPK_TEST MODEL.RPN.PRE_NMS_TOPK_TRAIN
        MODEL.SEM_SEG_HEAD.CONVS_DIM SOLVER.ACCUMULATE_STEPS SOLVER.CHECKPOINT_PERIOD SOLVER.IMS_PER_BATCH
        SOLVER.MAX_ITER SOLVER.NUM_DECAYS TEST.PRECISE_BN.NUM_ITER
        """,
    ),
    (
        _ABOVE_0,
        """
        INPUT.CROP.SINGLE_CATEGORY_MAX_AREA MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS MODEL.ANCHOR_GENERATOR.SIZES
        MODEL.PIXEL_STD MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        MODEL.RPN.BBOX_REG_WEIGHTS SOLVER.BASE_LR SOLVER.CLIP_GRADIENTS.CLIP_VALUE
        """,
    ),
    (_SHARE, "MODEL.ROI_HEADS.POSITIVE_FRACTION MODEL.RPN.POSITIVE_FRACTION"),
    (
        _SHARE_ABOVE_0,
        """
        DATALOADER.RANDOM_SUBSET_RATIO MODEL.ROI_BOX_CASCADE_HEAD.IOUS MODEL.ROI_HEADS.IOU_THRESHOLDS
        MODEL.RPN.IOU_THRESHOLDS
        """,
    ),
    (_SHARE_BELOW_1, "MODEL.ANCHOR_GENERATOR.OFFSET MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE SOLVER.MOMENTUM"),
    (_CHANNELS, "MODEL.RPN.CONV_DIMS"),
    (_NORM, "SOLVER.CLIP_GRADIENTS.NORM_TYPE"),
    (_SEED, "SEED"),
)

RANGES: Final[dict[str, Range]] = {key: range_ for range_, keys in _GROUPS for key in keys.split()}
"""What a key's number must be, or each of its list."""


def numbers(value: Any) -> Iterator[Any]:
    """What a value is, or what lists of it are, of any depth."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    elif value is not None:
        yield value
