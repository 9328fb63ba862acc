"""A trained model by one name: a config, a config of the zoo, a checkpoint, or the folder of a run."""

import os
from typing import NamedTuple

from detectron2.utils.file_io import PathManager

from ...zoo_files import config_key, config_names, did_you_mean, get_checkpoint, get_config_file, published
from .checkpoint_files import newest_sound

__all__ = ["EXPORTED_SUFFIXES", "ModelFiles", "checkpoint_path", "find_model", "is_exported", "last_checkpoint"]

_CHECKPOINT_SUFFIXES = (".pth", ".pkl", ".pyth")
EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2")
"""Of what ``python -m panoptic_fpn_ext.export`` writes."""


class ModelFiles(NamedTuple):
    """Where a model is; ``weights`` is empty where only a config was named."""

    config: str
    weights: str


def is_exported(path: str) -> bool:
    """Whether a name is that of an exported model."""
    return path.endswith(EXPORTED_SUFFIXES)


def find_model(name: str) -> ModelFiles:
    """The files that a name stands for.

    Args:
        name: a config file (its weights are the last checkpoint beside it, if it is what a run left); the name of a
            config in the zoo (its weights are the published ones, if there are any); a checkpoint with its
            ``config.yaml`` beside it; or the folder of both.

    Raises:
        FileNotFoundError: there is no such file, folder or name, or nothing beside it.
        ValueError: an exported model, which is no config.
    """
    if not name:
        raise FileNotFoundError(
            "No config is named: --config-file takes a file or a name of the zoo, which python -m "
            "panoptic_fpn_ext.model_zoo lists."
        )
    if is_exported(name):
        raise ValueError(
            f"{name} is an exported model. panoptic_fpn_ext.export.ExportedPredictor predicts images with it, and "
            "train_net.py --eval-only evaluates it as MODEL.WEIGHTS of a config."
        )
    if PathManager.isdir(name):
        name = os.path.join(name, "config.yaml")
    if name.endswith(_CHECKPOINT_SUFFIXES):
        return ModelFiles(_config_beside(name), name)
    if PathManager.isfile(name):
        is_of_run = os.path.basename(name) == "config.yaml"
        return ModelFiles(name, last_checkpoint(os.path.dirname(name)) if is_of_run else "")
    if config_key(name) in map(config_key, config_names()):
        weights = get_checkpoint(name) if config_key(name) in published() else ""
        return ModelFiles(get_config_file(name), weights)
    raise FileNotFoundError(
        f"{name!r} is no config file, no checkpoint, no folder of a run and no name of the zoo, which python -m "
        f"panoptic_fpn_ext.model_zoo lists.{did_you_mean(name)}"
    )


def checkpoint_path(weights: str) -> str:
    """What ``MODEL.WEIGHTS`` stands for: the published weights of a config of the zoo, else the path itself."""
    is_name = config_key(weights) in published() and not PathManager.isfile(weights)
    return get_checkpoint(weights) if is_name else weights


def _config_beside(checkpoint: str) -> str:
    config = os.path.join(os.path.dirname(checkpoint), "config.yaml")
    for path, what in ((checkpoint, "Checkpoint"), (config, f"The config of checkpoint {checkpoint},")):
        if not PathManager.isfile(path):
            raise FileNotFoundError(
                f"{what} {path} does not exist. Name the config with --config-file and the checkpoint with "
                "MODEL.WEIGHTS."
            )
    return config


def last_checkpoint(folder: str) -> str:
    """The newest sound checkpoint that a run left in its folder, empty where there is none.

    Raises:
        ValueError: there are checkpoints, and none is sound.
    """
    return newest_sound(folder) if os.path.isdir(folder or ".") else ""
