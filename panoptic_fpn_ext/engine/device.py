"""Where a model runs."""

import logging

import torch
from detectron2.config import CfgNode

__all__ = ["use_available_device"]

logger = logging.getLogger(__name__)


def use_available_device(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to ``cpu`` where it asks for a GPU that is not there; a frozen ``cfg`` stays frozen."""
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return
    logger.warning("No GPU was found: MODEL.DEVICE is set to cpu.")
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    if frozen:
        cfg.freeze()
