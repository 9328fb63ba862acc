"""A LazyConfig as the checks of configs read it: its values under detectron2's yacs keys, and what it calls these keys.

So one table of rules serves both kinds of config. A value that a LazyConfig leaves out is the default of what it calls.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pydoc import locate
from typing import Any, Final, NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...config import add_panoptic_fpn_ext_config
from .yacs_paths import BOTTOM_UP, CLASSES, OTHER_PATHS, PATHS, ROI_HEADS, TRAIN_AUGMENTATIONS

__all__ = ["YacsView", "renamed", "yacs_view"]

_YACS_KEY = re.compile(r"\b(?:DATALOADER|DATASETS|INPUT|MODEL|SOLVER|TEST)(?:\.[A-Z0-9_]+)+")


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
    for key, path in PATHS.items():
        paths = [path, OTHER_PATHS[key]] if key in OTHER_PATHS else [path]
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
    for key, (path, registry) in CLASSES.items():
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
            yield key, f'"{part}" in {ROI_HEADS}', heads.get(part) is not None


def _pyramid(config: DictConfig) -> Values:
    """The backbone, if it is a pyramid on a ResNet, and its deformable stages."""
    backbone = config.model.get("backbone")
    if _target(backbone) is not FPN:
        return
    name = getattr(_target(backbone.bottom_up), "__name__", "")
    top = _target(backbone.get("top_block"))
    kinds = {LastLevelMaxPool: "build_resnet_fpn_backbone", LastLevelP6P7: "build_retinanet_resnet_fpn_backbone"}
    if name == "make_narrow_resnet" and top is LastLevelMaxPool:
        yield "MODEL.BACKBONE.NAME", f"{BOTTOM_UP}._target_", "build_narrow_resnet_fpn_backbone"
    elif top in kinds:
        yield "MODEL.BACKBONE.NAME", f"{BOTTOM_UP}._target_", kinds[top]
    stages = backbone.bottom_up.get("stages") if isinstance(backbone.bottom_up, DictConfig) else None
    if isinstance(stages, ListConfig):
        blocks = [str(getattr(stage.get("block_class"), "__name__", "")) for stage in stages]
        yield "MODEL.RESNETS.DEFORM_ON_PER_STAGE", f"{BOTTOM_UP}.stages", ["Deform" in block for block in blocks]


def _crop(config: DictConfig) -> Values:
    """Crops that come after the resize; others are not of its pixels."""
    found = [
        next(_find(config, f"{TRAIN_AUGMENTATIONS}.{part}".split(".")), None)
        for part in ("short_edge_length", "crop_type")
    ]
    indices = [int(one[0].split(".")[-2]) for one in found if one is not None]
    if len(indices) == 2 and indices[0] < indices[1]:
        yield "INPUT.CROP.ENABLED", TRAIN_AUGMENTATIONS.replace("*", str(indices[1])), True
