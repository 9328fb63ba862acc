"""Configs and published checkpoints by name, as detectron2's model zoo has them.

``python -m panoptic_fpn_ext.model_zoo`` lists every config with its weights; with a name it prints where the weights
are; ``publish`` adds a checkpoint, see :mod:`panoptic_fpn_ext.model_zoo.publish`.
"""

from .configs import config_names, get, get_config, get_config_file
from .table import get_checkpoint, published

__all__ = ["config_names", "get", "get_checkpoint", "get_config", "get_config_file", "published"]
