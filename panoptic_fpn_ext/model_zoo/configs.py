"""Configs by name, and the models they describe."""

import functools
import operator
from typing import Any

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.modeling import build_model
from omegaconf import DictConfig

from ..config import add_panoptic_fpn_ext_config
from ..engine.checkpoints.checkpoint import PanopticCheckpointer, recorded_source
from ..engine.checks import fill_in_num_classes
from ..engine.device import available_device, use_available_device
from ..engine.lazy_training import build_lazy_model
from ..engine.lazy_values import fill_in_head_sizes
from ..engine.settings.config_keys import all_keys
from ..utf8 import utf8_configs
from ..zoo_files import get_checkpoint, get_config_file

__all__ = ["get", "get_config", "recipe"]

_OF_A_RECIPE = ("DATALOADER", "DATASETS", "INPUT", "MODEL", "SEED", "SOLVER")


def get_config(name: str, trained: bool = False) -> CfgNode | DictConfig:
    """Config of a name, not frozen: a LazyConfig of a ``.py`` file, else a `CfgNode` with this package's keys.

    With ``trained``, ``MODEL.WEIGHTS`` or ``train.init_checkpoint`` are the published weights.
    """
    path = get_config_file(name)
    if path.endswith(".py"):
        with utf8_configs():
            lazy = LazyConfig.load(path)
        if trained:
            lazy.train.init_checkpoint = get_checkpoint(name)
        return lazy
    cfg = _defaults()
    with utf8_configs():
        cfg.merge_from_file(path)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint(name)
    return cfg


def recipe(name: str) -> dict[str, str]:
    """What a YAML config changes of the options that training reads: values by key, as a command line takes them.

    A row of the zoo's table records it, so that a change of a config or of its base does not go unnoticed.
    """
    cfg, defaults = get_config(name), _defaults()
    keys = [key for key in all_keys(cfg) if key.startswith(_OF_A_RECIPE)]
    return {key: str(_value(cfg, key)) for key in keys if _value(cfg, key) != _value(defaults, key)}


def _defaults() -> CfgNode:
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    return cfg


def _value(cfg: CfgNode, key: str) -> Any:
    return functools.reduce(operator.getitem, key.split("."), cfg)


def get(name: str, trained: bool = False, device: str | None = None) -> torch.nn.Module:
    """Model of a config, in training mode as detectron2's ``model_zoo.get`` gives it.

    Args:
        name: as for :func:`get_config_file`.
        trained: load the published weights; otherwise what the config starts from.
        device: where the model goes; by default the config's device, or the CPU where there is no GPU.

    Raises:
        KeyError: no such config, or no published weights for it; or it takes its classes from a dataset, and neither
            published weights record them nor is that dataset registered.
        ConnectionError: weights that have to be downloaded and cannot be.
        FileNotFoundError: the config starts from a file that is not there yet; the commands that make it are named.
    """
    cfg = get_config(name, trained)
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
        use_available_device(cfg)
        weights = cfg.MODEL.WEIGHTS
        fill_in_num_classes(cfg, recorded_source(weights) if trained else None)
        model = build_model(cfg)
    else:
        cfg.train.device = available_device(device or cfg.train.device)
        weights = cfg.train.init_checkpoint
        fill_in_head_sizes(cfg, recorded_source(weights) if trained else None)
        model = build_lazy_model(cfg)
    PanopticCheckpointer(model, complete=trained).load(weights)
    return model
