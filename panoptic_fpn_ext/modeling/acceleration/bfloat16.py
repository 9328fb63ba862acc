"""Layers in bfloat16, on CPUs that multiply such numbers."""

import platform
from typing import Any

import torch
from torch import nn

from .replace import Place

# detectron2's names of layers whose results are scores, coordinates, and logits.
_PREDICTORS = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor")

__all__ = ["cpu_has_bfloat16", "use_bfloat16"]


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 by instructions of its own; without them float32 is faster."""
    if platform.machine() in ("x86_64", "AMD64"):
        is_supported: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    else:
        is_supported = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return bool(is_supported())


def use_bfloat16(place: Place) -> nn.Module:
    """The same layer with weights in bfloat16; norms, anchors and pixel means beside it stay float32.

    What a predictor gives becomes float32: scores then tie no more often, and boxes are not rounded twice.
    """
    layer: nn.Module = place.module
    for parameter in layer.parameters(recurse=False):
        parameter.data = parameter.data.bfloat16()
    if any(getattr(place.parent, name, None) is layer for name in _PREDICTORS):
        layer.register_forward_hook(_to_float32)
    return layer


def _to_float32(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()
