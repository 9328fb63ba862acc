"""Where a model runs."""

import logging

import torch
from detectron2.config import CfgNode

__all__ = ["available_device", "use_available_device"]

logger = logging.getLogger(__name__)


def available_device(name: str) -> str:
    """The device of this name, or ``"cpu"`` where it is a GPU that is not there."""
    return "cpu" if name.startswith("cuda") and not torch.cuda.is_available() else name


def use_available_device(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to ``cpu`` where it asks for a GPU that is not there; a frozen ``cfg`` stays frozen."""
    device = available_device(cfg.MODEL.DEVICE)
    if device == cfg.MODEL.DEVICE:
        return
    logger.warning(f"No GPU was found: MODEL.DEVICE is set to {device}.")
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    if frozen:
        cfg.freeze()
