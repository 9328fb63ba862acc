"""A LazyConfig as the checks of configs read it: its values under detectron2's yacs keys, and what it calls these keys.

So one table of rules serves both kinds of config. A value that a LazyConfig leaves out is the default of what it calls.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pydoc import locate
from typing import Any, Final, NamedTuple

import detectron2.modeling as modeling
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from fvcore.common.registry import Registry
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...config import add_panoptic_fpn_ext_config

__all__ = ["YacsView", "renamed", "yacs_view"]

_YACS_KEY = re.compile(r"\b(?:DATALOADER|DATASETS|INPUT|MODEL|SOLVER|TEST)(?:\.[A-Z0-9_]+)+")
_TRAIN, _TEST = ("dataloader.train.mapper.augmentations.*", "dataloader.test.mapper.augmentations.*")
_RPN, _HEADS, _HEAD = "model.proposal_generator", "model.roi_heads", "model.sem_seg_head"
_BOTTOM_UP = "model.backbone.bottom_up"

_PATHS: Final[dict[str, str]] = {
    "DATALOADER.NUM_WORKERS": "dataloader.train.num_workers",
    "DATASETS.ALLOW_ERRORS": "dataloader.train.mapper.allow_errors",
    "DATASETS.CHECKED_IMAGES": "train.checked_images",
    "INPUT.CROP.SIZE": f"{_TRAIN}.crop_size",
    "INPUT.CROP.TYPE": f"{_TRAIN}.crop_type",
    "INPUT.FORMAT": "dataloader.train.mapper.image_format",
    "INPUT.MASK_FORMAT": "dataloader.train.mapper.instance_mask_format",
    "INPUT.MAX_SIZE_TEST": f"{_TEST}.max_size",
    "INPUT.MAX_SIZE_TRAIN": f"{_TRAIN}.max_size",
    "INPUT.MIN_SIZE_TEST": f"{_TEST}.short_edge_length",
    "INPUT.MIN_SIZE_TRAIN": f"{_TRAIN}.short_edge_length",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": f"{_TRAIN}.sample_style",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": f"{_RPN}.anchor_generator.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.SIZES": f"{_RPN}.anchor_generator.sizes",
    "MODEL.BACKBONE.FREEZE_AT": f"{_BOTTOM_UP}.freeze_at",
    "MODEL.FPN.FUSE_TYPE": "model.backbone.fuse_type",
    "MODEL.FPN.IN_FEATURES": "model.backbone.in_features",
    "MODEL.FPN.NORM": "model.backbone.norm",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": "model.combiner.instance_score_threshold",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": "model.combiner.overlap_threshold",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": "model.combiner.stuff_area_threshold",
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": "model.instance_loss_weight",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": f"{_RPN}.min_box_size",
    "MODEL.RESNETS.DEPTH": f"{_BOTTOM_UP}.stages.depth",
    "MODEL.RESNETS.NORM": f"{_BOTTOM_UP}.stages.norm",
    "MODEL.RESNETS.OUT_FEATURES": f"{_BOTTOM_UP}.out_features",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": f"{_HEADS}.box_predictor.box_reg_loss_type",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": f"{_HEADS}.box_predictors.-1.cls_agnostic_bbox_reg",
    "MODEL.ROI_BOX_HEAD.NORM": f"{_HEADS}.box_head.conv_norm",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": f"{_HEADS}.box_pooler.pooler_type",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": f"{_HEADS}.box_predictor.use_fed_loss",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": f"{_HEADS}.batch_size_per_image",
    "MODEL.ROI_HEADS.IN_FEATURES": f"{_HEADS}.box_in_features",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": f"{_HEADS}.box_predictor.test_nms_thresh",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": f"{_HEADS}.positive_fraction",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": f"{_HEADS}.box_predictor.test_score_thresh",
    "MODEL.ROI_MASK_HEAD.NORM": f"{_HEADS}.mask_head.conv_norm",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": f"{_HEADS}.mask_pooler.pooler_type",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": f"{_RPN}.batch_size_per_image",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": f"{_RPN}.box_reg_loss_type",
    "MODEL.RPN.IN_FEATURES": f"{_RPN}.in_features",
    "MODEL.RPN.LOSS_WEIGHT": f"{_RPN}.loss_weight",
    "MODEL.RPN.NMS_THRESH": f"{_RPN}.nms_thresh",
    "MODEL.RPN.POSITIVE_FRACTION": f"{_RPN}.positive_fraction",
    "MODEL.RPN.POST_NMS_TOPK_TEST": f"{_RPN}.post_nms_topk.1",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": f"{_RPN}.pre_nms_topk.1",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": f"{_HEAD}.common_stride",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": f"{_HEAD}.ignore_value",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": f"{_HEAD}.input_shape",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": f"{_HEAD}.loss_weight",
    "MODEL.SEM_SEG_HEAD.NORM": f"{_HEAD}.norm",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": f"{_HEAD}.num_classes",
    "MODEL.WEIGHTS": "train.init_checkpoint",
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.BEST_CHECKPOINTER.METRIC": "train.best_checkpointer.val_metric",
    "SOLVER.BEST_CHECKPOINTER.MODE": "train.best_checkpointer.mode",
    "SOLVER.CHECKPOINT_PERIOD": "train.checkpointer.period",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "train.clip_gradients.clip_type",
    "SOLVER.IMS_PER_BATCH": "dataloader.train.total_batch_size",
    "SOLVER.MAX_ITER": "train.max_iter",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.NESTEROV": "optimizer.nesterov",
    "TEST.AUG.ENABLED": "train.test_aug.enabled",
    "TEST.AUG.FLIP": "train.test_aug.flip",
    "TEST.AUG.MAX_SIZE": "train.test_aug.max_size",
    "TEST.AUG.MIN_SIZES": "train.test_aug.min_sizes",
    "TEST.DETECTIONS_PER_IMAGE": f"{_HEADS}.box_predictor.test_topk_per_image",
    "TEST.EVAL_PERIOD": "train.eval_period",
}
"""Where a LazyConfig has the value of a yacs key; ``*`` stands for any part of a list."""

_OTHER_PATHS: Final[dict[str, str]] = {
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": "model.combine_instances_score_thresh",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": "model.combine_overlap_thresh",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": "model.combine_stuff_area_thresh",
    "MODEL.RESNETS.DEPTH": f"{_BOTTOM_UP}.depth",
    "MODEL.RESNETS.NORM": f"{_BOTTOM_UP}.norm",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": f"{_HEADS}.box_predictors.-1.test_nms_thresh",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": f"{_HEADS}.box_predictors.-1.test_score_thresh",
    "TEST.DETECTIONS_PER_IMAGE": f"{_HEADS}.box_predictors.-1.test_topk_per_image",
}
"""The same of cascades, whose last stage decides, and of detectron2's own panoptic network."""

_CLASSES: Final[dict[str, tuple[str, Registry]]] = {
    "MODEL.ANCHOR_GENERATOR.NAME": (f"{_RPN}.anchor_generator", modeling.ANCHOR_GENERATOR_REGISTRY),
    "MODEL.META_ARCHITECTURE": ("model", modeling.META_ARCH_REGISTRY),
    "MODEL.PROPOSAL_GENERATOR.NAME": (_RPN, modeling.PROPOSAL_GENERATOR_REGISTRY),
    "MODEL.ROI_HEADS.NAME": (_HEADS, modeling.ROI_HEADS_REGISTRY),
}
"""Keys that name a registered class, and where a LazyConfig has the class itself, or one that is derived from it."""


class YacsView(NamedTuple):
    """What the checks of configs read.

    Attributes:
        cfg: a yacs config.
        names: what the user calls those of its keys whose values are known.
    """

    cfg: CfgNode
    names: Mapping[str, str]


def renamed(message: str, names: Mapping[str, str] | None) -> str | None:
    """A message in the user's names for the yacs keys in it; None where it tells of a key whose value is not known.

    ``names`` are those of a :class:`YacsView`, None for a yacs config, whose keys are the user's own.
    """
    if names is None:
        return message
    if not set(_YACS_KEY.findall(message)).issubset(names):
        return None
    return _YACS_KEY.sub(lambda found: names[found[0]], message)


def yacs_view(config: DictConfig) -> YacsView:
    """What the checks read, of a LazyConfig."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (), (), str(config.train.output_dir)
    cfg.MODEL.META_ARCHITECTURE = _architecture_by_parts(config)
    names: dict[str, str] = {}
    for key, path, value in [*_plain_values(config), *_classes(config), *_derived_values(config)]:
        parent, _, name = key.rpartition(".")
        node = _node(cfg, parent)
        if _is_of_its_kind(value, node[name]):
            node[name], names[key] = value, path
    return YacsView(cfg, names)


def _node(cfg: CfgNode, key: str) -> CfgNode:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _is_of_its_kind(value: Any, default: Any) -> bool:
    """What is wrong in kind is left to what the LazyConfig calls."""
    if isinstance(default, int | float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return value is not None


Values = Iterator[tuple[str, str, Any]]
"""Yacs key, path in the LazyConfig, value."""


def _plain_values(config: DictConfig) -> Values:
    for key, path in _PATHS.items():
        paths = [path, _OTHER_PATHS[key]] if key in _OTHER_PATHS else [path]
        found = next((one for path in paths for one in _find(config, path.split("."))), None)
        if found is not None:
            path, value = found
            yield key, path, _CONVERSIONS.get(key, lambda x: x)(value)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _rows(value: Any) -> Any:
    """A list for each level, or one for all; detectron2 also takes the latter without its brackets."""
    return [value] if value and not isinstance(value[0], list) else value


def _largest(value: Any) -> Any:
    """The weight of a loss, or the largest of those of its parts."""
    return max(value.values(), default=1.0) if isinstance(value, dict) else value


_CONVERSIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "INPUT.MIN_SIZE_TEST": _first,
    "INPUT.MIN_SIZE_TRAIN": lambda value: [value] if isinstance(value, int) else value,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _rows,
    "MODEL.ANCHOR_GENERATOR.SIZES": _rows,
    "MODEL.RPN.LOSS_WEIGHT": _largest,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": list,
}


def _find(node: Any, path: list[str], so_far: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Where a path leads, and the value there as plain Python; nothing where it leads nowhere."""
    if not path:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        yield ".".join(so_far), list(plain) if isinstance(plain, tuple) else plain
        return
    name, rest = path[0], path[1:]
    if isinstance(node, ListConfig):
        numbers = [str(index) for index in range(len(node))]
        for index in numbers if name == "*" else numbers[-1:] if name == "-1" else [name] if name in numbers else []:
            yield from _find(node[int(index)], rest, (*so_far, index))
    elif isinstance(node, list | tuple) and name.isdigit() and int(name) < len(node):  # of a default
        yield from _find(node[int(name)], rest, (*so_far, name))
    elif isinstance(node, DictConfig) and (argument := _argument(node, name)) is not None:
        yield from _find(argument, rest, (*so_far, name))


def _argument(node: DictConfig, name: str) -> Any:
    """An argument of a call, or its default; None where there is neither, or where it refers to what is missing."""
    try:
        if name in node:
            return node[name]
        default = inspect.signature(_target(node)).parameters[name].default
    except (KeyError, TypeError, ValueError, OmegaConfBaseException):
        return None
    return None if default is inspect.Parameter.empty else default


def _target(node: Any) -> Any:
    """What a node calls, None where it calls nothing."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return locate(target) if isinstance(target, str) else target


def _classes(config: DictConfig) -> Values:
    for key, (path, registry) in _CLASSES.items():
        target = _target(OmegaConf.select(config, path))
        registered = [c.__name__ for c in getattr(target, "__mro__", ()) if c.__name__ in registry]
        if registered:
            yield key, f"{path}._target_", registered[0]


def _architecture_by_parts(config: DictConfig) -> str:
    """What a model that detectron2 does not know is like."""
    has_instances, has_semantics = "roi_heads" in config.model, "sem_seg_head" in config.model
    if has_instances:
        return "PanopticFPNExt" if has_semantics else "GeneralizedRCNN"
    return "SemanticSegmentor"


def _derived_values(config: DictConfig) -> Values:
    """What a LazyConfig has in another form."""
    share = next(_find(config, ["lr_multiplier", "warmup_length"]), ("", None))[1]
    if isinstance(share, int | float):
        name = "lr_multiplier.warmup_length × train.max_iter"
        yield "SOLVER.WARMUP_ITERS", name, round(share * config.train.max_iter)
    optimizer = getattr(_target(config.optimizer), "__name__", "").upper()
    if optimizer in ("SGD", "ADAMW"):
        yield "SOLVER.OPTIMIZER", "optimizer._target_", optimizer
    yield from _pyramid(config)
    yield from _crop(config)
    heads = config.model.get("roi_heads")
    if isinstance(heads, DictConfig) and _target(heads) is not None:
        for part, key in (("keypoint_head", "MODEL.KEYPOINT_ON"), ("mask_head", "MODEL.MASK_ON")):
            yield key, f'"{part}" in {_HEADS}', heads.get(part) is not None


def _pyramid(config: DictConfig) -> Values:
    """The backbone, if it is a pyramid on a ResNet, and its deformable stages."""
    backbone = config.model.get("backbone")
    if _target(backbone) is not FPN:
        return
    name = getattr(_target(backbone.bottom_up), "__name__", "")
    top = _target(backbone.get("top_block"))
    kinds = {LastLevelMaxPool: "build_resnet_fpn_backbone", LastLevelP6P7: "build_retinanet_resnet_fpn_backbone"}
    if name == "make_narrow_resnet" and top is LastLevelMaxPool:
        yield "MODEL.BACKBONE.NAME", f"{_BOTTOM_UP}._target_", "build_narrow_resnet_fpn_backbone"
    elif top in kinds:
        yield "MODEL.BACKBONE.NAME", f"{_BOTTOM_UP}._target_", kinds[top]
    stages = backbone.bottom_up.get("stages") if isinstance(backbone.bottom_up, DictConfig) else None
    if isinstance(stages, ListConfig):
        blocks = [str(getattr(stage.get("block_class"), "__name__", "")) for stage in stages]
        yield "MODEL.RESNETS.DEFORM_ON_PER_STAGE", f"{_BOTTOM_UP}.stages", ["Deform" in block for block in blocks]


def _crop(config: DictConfig) -> Values:
    """Crops that come after the resize; others are not of its pixels."""
    found = [next(_find(config, f"{_TRAIN}.{part}".split(".")), None) for part in ("short_edge_length", "crop_type")]
    indices = [int(one[0].split(".")[-2]) for one in found if one is not None]
    if len(indices) == 2 and indices[0] < indices[1]:
        yield "INPUT.CROP.ENABLED", _TRAIN.replace("*", str(indices[1])), True
