"""Where a model runs."""

import logging
from functools import lru_cache
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import create_ddp_model
from torch import nn

__all__ = ["available_device", "distribute", "synchronize", "use_available_device", "use_float32_precision"]

logger = logging.getLogger(__name__)


def available_device(name: str) -> str:
    """The device of this name, or ``"cpu"`` where it is a GPU that is not there."""
    return "cpu" if name.startswith("cuda") and not torch.cuda.is_available() else name


def use_available_device(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to ``cpu`` where it asks for a GPU that is not there; a frozen ``cfg`` stays frozen."""
    device = available_device(cfg.MODEL.DEVICE)
    if device == cfg.MODEL.DEVICE:
        return
    _say_device(device)
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    if frozen:
        cfg.freeze()


@lru_cache(maxsize=1)  # a process may read several configs
def _say_device(device: str) -> None:
    logger.info(f"No GPU was found: MODEL.DEVICE is set to {device}.")


def synchronize(device: torch.device | str) -> None:
    """Wait until a GPU has done what it was given, as a clock must; a CPU is never behind."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def use_float32_precision(precision: str) -> None:
    """Set how exactly GPUs compute with float32, as ``FLOAT32_PRECISION`` of newer versions of detectron2 says.

    ``highest`` is without TF32, ``high`` and ``medium`` are with it; "" leaves PyTorch's settings.
    """
    if precision:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def distribute(model: nn.Module, **kwargs: Any) -> nn.Module:
    """A model, data-parallel over all processes; on CPUs the wrapper must not be told a device.

    ``kwargs`` are those of detectron2's `create_ddp_model`.
    """
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    return create_ddp_model(model, **{"broadcast_buffers": False, "device_ids": devices, **kwargs})
