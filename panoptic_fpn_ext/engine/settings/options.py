"""detectron2's own options: what cannot work with the models here is refused by key, before anything is built.

``docs/detectron2_options.md`` says of each key of detectron2's defaults whether it works, and which values it takes.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import detectron2.modeling as modeling
from detectron2.config import CfgNode
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from fvcore.common.registry import Registry

from ...categories import ALL_CLASSES, THINGS_AS_OTHER
from ...modeling import PANOPTIC_COMBINER_REGISTRY
from .config_keys import all_keys
from .model_outputs import WITHOUT_ROI_HEADS, WITHOUT_SEM_SEG_HEAD
from .option_ranges import RANGES, numbers
from .option_rules import COMBINATIONS, Found, unregistered
from .yacs_view import renamed

__all__ = ["check_options"]

_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN")
_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
_POOLERS = ("ROIAlignV2", "ROIAlign", "ROIPool")

_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler",
        "RepeatFactorTrainingSampler",
        "RandomSubsetTrainingSampler",
        "WeightedTrainingSampler",
        "WeightedCategoryTrainingSampler",
    ),
    "DATASETS.SEM_SEG_SPACE": (THINGS_AS_OTHER, ALL_CLASSES),
    "FLOAT32_PRECISION": ("", "highest", "high", "medium"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": (*_POOLERS, ""),  # none, where the head looks at the maps itself
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.SEM_SEG_HEAD.NORM": _NORMS,
    "SOLVER.BEST_CHECKPOINTER.MODE": ("max", "min"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
}
"""Keys that take one of a few values."""

_REGISTRIES: Final[dict[str, Registry]] = {
    "MODEL.META_ARCHITECTURE": modeling.META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": modeling.BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": modeling.PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": modeling.ANCHOR_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ROI_HEADS.NAME": modeling.ROI_HEADS_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": modeling.SEM_SEG_HEADS_REGISTRY,
    "MODEL.PANOPTIC_FPN.COMBINE.NAME": PANOPTIC_COMBINER_REGISTRY,
}
"""Keys that name a registered class."""

_IMPOSSIBLE: Final[dict[tuple[str, Any], str]] = {
    ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"): "panoptic masks have upright boxes, take "
    "DefaultAnchorGenerator",
    ("MODEL.KEYPOINT_ON", True): "panoptic datasets have no keypoints, set it to False",
    ("MODEL.LOAD_PROPOSALS", True): "the RPN makes the proposals, those of files are not read, set it to False",
    ("MODEL.META_ARCHITECTURE", "ProposalNetwork"): "it predicts nothing that is measured here, take detectron2's own "
    "tools/train_net.py",
    ("MODEL.META_ARCHITECTURE", "RetinaNet"): "it predicts nothing that is measured here, take detectron2's own "
    "tools/train_net.py",
    ("MODEL.PANOPTIC_FPN.COMBINE.ENABLED", False): "detectron2 does not read it any more, set it to True and leave "
    "the panoptic map out by MODEL.PANOPTIC_FPN.OUTPUTS",
    ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"): "the RPN makes the proposals, those of files are not "
    "read, take RPN",
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"): "panoptic masks have upright boxes, take RPN",
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True): "the federated loss is for LVIS, where not all instances are labelled; "
    "in a panoptic map they are, set it to False",
    ("MODEL.ROI_HEADS.NAME", "RROIHeads"): "panoptic masks have upright boxes, take StandardROIHeads",
}
"""Values of detectron2's that cannot work here, and why."""

_TRAINING: Final[tuple[str, ...]] = (
    *("DATALOADER.", "INPUT.CROP.", "INPUT.MASK_FORMAT", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN"),
    *("INPUT.RANDOM_FLIP", "SOLVER.", "TEST.EVAL_PERIOD", "TEST.EXPECTED_RESULTS", "VIS_PERIOD"),
)
_INSTANCES = ("MODEL.ANCHOR_GENERATOR.", "MODEL.PROPOSAL_GENERATOR.", "MODEL.ROI_", "MODEL.RPN.")
_SEMANTICS = ("MODEL.SEM_SEG_HEAD.",)
_COMBINED = ("MODEL.PANOPTIC_FPN.",)


def check_options(cfg: CfgNode, training: bool = True, names: Mapping[str, str] | None = None) -> None:
    """Refuse values of detectron2's keys that cannot work; those of parts that the model does not have are not read.

    Args:
        cfg: of a model of this package, or of one of its halves.
        training: whether keys matter that only training reads.
        names: of keys, where ``cfg`` is the view of a LazyConfig, see
            :mod:`~panoptic_fpn_ext.engine.settings.yacs_view`.

    Raises:
        ValueError: one line a key, with its value and one that works.
    """
    skipped = _unread_keys(cfg, training)
    wrong: dict[str, str] = {}  # the first reason of each key
    for key, came, reason in [*_wrong_values(cfg), *_wrong_combinations(cfg)]:
        line = renamed(f"  {key} is {came!r}: {reason}.", names)
        if line is not None and not key.startswith(skipped):
            wrong.setdefault(key, line)
    if wrong:
        raise ValueError("\n".join(["The config asks for what cannot work here:", *wrong.values()]))


def _unread_keys(cfg: CfgNode, training: bool) -> tuple[str, ...]:
    """Prefixes of keys that a run does not read."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    unread: tuple[str, ...] = () if training else _TRAINING
    if architecture in WITHOUT_ROI_HEADS:
        unread += (*_INSTANCES, *_COMBINED)
    if architecture in WITHOUT_SEM_SEG_HEAD:
        unread += (*_SEMANTICS, *_COMBINED)
    return unread if cfg.INPUT.CROP.ENABLED else (*unread, "INPUT.CROP.")


def _wrong_values(cfg: CfgNode) -> Found:
    """Key, value and reason of what is wrong by itself."""
    for key in all_keys(cfg):
        if isinstance(value := _get(cfg, key), float) and math.isnan(value):
            yield key, value, "it must be a number"
    for (key, refused), reason in _IMPOSSIBLE.items():
        value = _get(cfg, key)
        if value == refused:
            yield key, value, reason
    for key, choices in _CHOICES.items():
        if (value := _get(cfg, key)) not in (*choices, None) and not _is_norm(key, value):
            yield key, value, f"it must be one of {', '.join(repr(c) for c in choices)}"
    for key, registry in _REGISTRIES.items():
        if (value := _get(cfg, key)) is not None and value not in registry:
            yield key, value, unregistered(value, registry)
    for key, range_ in RANGES.items():
        value = _get(cfg, key)
        if not all(isinstance(number, int | float) and range_.holds(number) for number in numbers(value)):
            what = "each of it" if isinstance(value, list | tuple) else "it"
            yield key, value, f"{what} must be {range_.words}"


def _get(cfg: CfgNode, key: str) -> Any:
    """Value of a dotted key, None where the config has none (other versions of detectron2)."""
    node: Any = cfg
    for name in key.split("."):
        if name not in node:
            return None
        node = node[name]
    return node


def _is_norm(key: str, value: Any) -> bool:
    """detectron2 takes a function for a norm too, where a config is made in Python."""
    return key.endswith(".NORM") and callable(value)


def _wrong_combinations(cfg: CfgNode) -> Found:
    """Key, value and reason of what is wrong beside other keys."""
    for rule in COMBINATIONS:
        yield from rule(cfg)
