"""Faults that a CPU forgives, planted, and found by the rehearsal."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretend_gpu import GpuTensor, PretendGpu
from rehearsed_models import build_tiny, draw_images, train


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that forgets the device of its result."""

    def moved(*args: Any, **kwargs: Any) -> Any:
        return torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.cpu(), function(*args, **kwargs))

    return moved


FAULTS = [
    ("combiner.heuristic.label_free_pixels", "inference"),
    ("combiner.heuristic.label_areas", "inference"),
    ("postprocessing.resize.composed_taps", "inference"),
    ("postprocessing.instances.paste_masks", "inference"),
    ("outputs.upsample_sem_seg_logits", "inference"),
    ("panoptic_fpn.raw_logits", "inference"),
    ("losses._taps", "training"),
    ("panoptic_fpn.sem_seg_targets", "training"),
    ("sem_seg_head.upsampled_cross_entropy", "training"),
]


@pytest.mark.parametrize(("function", "during"), FAULTS)
def test_a_forgotten_device_is_found(function: str, during: str, monkeypatch: pytest.MonkeyPatch):
    """On a CPU the same fault changes nothing; there every other test passes with it."""
    module, name = f"panoptic_fpn_ext.modeling.{function}".rsplit(".", 1)
    original = getattr(importlib.import_module(module), name)
    model = build_tiny()
    with PretendGpu():
        model.to("cuda")
        monkeypatch.setattr(f"{module}.{name}", _on_cpu(original))
        if during == "training":
            with pytest.raises(RuntimeError, match=r"same device|on cpu"):
                train(model, "SGD", iterations=1)
            return
        try:
            output = model.eval()(draw_images((64, 96)))[0]
        except RuntimeError as error:
            assert "same device" in str(error) or "on cpu" in str(error)
        else:  # an output itself
            tensors = [output["sem_seg"], output["panoptic_seg"][0], output["instances"].pred_masks]
            assert not all(isinstance(tensor, GpuTensor) for tensor in tensors)
