"""What tests of the configs share: which there are, and their settings as flat dicts."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from places import REPOSITORY

from panoptic_fpn_ext import add_panoptic_fpn_ext_config

CONFIGS = REPOSITORY / "configs"
COCO = "COCO-PanopticSegmentation"


def names(pattern: str, bases: bool = False) -> list[str]:
    """Configs relative to ``configs/``, with or without those that only others inherit from."""
    paths = (path for path in CONFIGS.rglob(pattern) if bases or not path.name.startswith("Base"))
    return sorted(path.relative_to(CONFIGS).as_posix() for path in paths)


def load(path: str | Path) -> CfgNode:
    """A config file, relative to ``configs/`` or absolute, on top of all defaults."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(str(CONFIGS / path))
    return cfg


def flat(cfg: CfgNode | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key; lists and tuples, which configs use alike, as lists."""
    result: dict[str, Any] = {}
    for key, value in cfg.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = _as_list(value)
    return result


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, list | tuple) else value
