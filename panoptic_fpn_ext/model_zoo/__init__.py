"""Configs and published checkpoints by name, as detectron2's model zoo has them.

``python -m panoptic_fpn_ext.model_zoo`` lists every config with its weights; with a name it prints where the weights
are; ``publish`` adds a checkpoint, see :mod:`panoptic_fpn_ext.model_zoo.publish`.
"""

from ..zoo_files import config_names, get_checkpoint, get_config_file, published
from .configs import get, get_config

__all__ = ["config_names", "get", "get_checkpoint", "get_config", "get_config_file", "published"]
