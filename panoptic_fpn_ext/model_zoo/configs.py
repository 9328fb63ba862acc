"""Configs by name, and the models they describe."""

from pathlib import Path

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.modeling import build_model
from omegaconf import DictConfig

from ..config import add_panoptic_fpn_ext_config
from ..engine.checkpoint import PanopticCheckpointer
from ..engine.device import available_device, use_available_device
from ..engine.lazy_training import build_lazy_model
from .table import get_checkpoint

__all__ = ["config_names", "get", "get_config", "get_config_file"]

_PACKAGE = Path(__file__).resolve().parents[1]


def config_names() -> list[str]:
    """Names of all configs, relative to ``configs/``: ``.yaml`` files and their lazy twins, ``.py``."""
    root = _config_root()
    names = [path.relative_to(root) for path in root.rglob("*.*") if path.suffix in (".yaml", ".py")]
    return sorted(str(name) for name in names if name.parts[0] != "common" and not name.name.startswith("Base"))


def get_config_file(name: str) -> str:
    """Path of a config.

    Args:
        name: relative to ``configs/``, e.g. ``"COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"``, or with ``.py``
            its lazy twin; without an ending it is the YAML file.

    Raises:
        KeyError: there is no such config; those that exist are named.
    """
    root = _config_root()
    for candidate in (name, f"{name}.yaml"):
        if (root / candidate).is_file():
            return str(root / candidate)
    raise KeyError(f"There is no config {name!r}. There are: {', '.join(config_names())}.")


def get_config(name: str, trained: bool = False) -> CfgNode | DictConfig:
    """Config of a name, not frozen: a LazyConfig of a ``.py`` file, else a `CfgNode` with this package's keys.

    With ``trained``, ``MODEL.WEIGHTS`` or ``train.init_checkpoint`` are the published weights.
    """
    path = get_config_file(name)
    if path.endswith(".py"):
        lazy = LazyConfig.load(path)
        if trained:
            lazy.train.init_checkpoint = get_checkpoint(name)
        return lazy
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(path)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint(name)
    return cfg


def get(name: str, trained: bool = False, device: str | None = None) -> torch.nn.Module:
    """Model of a config, in training mode as detectron2's ``model_zoo.get`` gives it.

    Args:
        name: as for :func:`get_config_file`.
        trained: load the published weights; otherwise what the config starts from.
        device: where the model goes; by default the config's device, or the CPU where there is no GPU.

    Raises:
        KeyError: no such config, or no published weights for it.
        ConnectionError: weights that have to be downloaded and cannot be.
    """
    cfg = get_config(name, trained)
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
        use_available_device(cfg)
        model, weights = build_model(cfg), cfg.MODEL.WEIGHTS
    else:
        cfg.train.device = available_device(device or cfg.train.device)
        model, weights = build_lazy_model(cfg), cfg.train.init_checkpoint
    PanopticCheckpointer(model, complete=trained).load(weights)
    return model


def _config_root() -> Path:
    """``configs/`` inside the installed package or, in a checkout, beside it."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"
