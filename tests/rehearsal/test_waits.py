"""How often the host waits for a GPU. As a script: the table of it."""

import sys
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from pretend_gpu import GpuTensor, PretendGpu, Waits
from rehearsed_models import build_optimizer, build_tiny, crowded, draw_images
from small_models import tiny_batch

from panoptic_fpn_ext.engine.training.train_step import choose_train_step


def inference_waits(architecture: str) -> Waits:
    """Of a prediction of one image with a hundred candidates."""
    model = build_tiny(crowded, architecture).eval()
    with PretendGpu() as gpu, torch.no_grad():
        model.to("cuda")
        with gpu.counting() as waits:
            output = model(draw_images((128, 192)))[0]
    assert len(output["instances"]) == 100
    return waits


def training_waits(architecture: str) -> Waits:
    """Of a training step with one image: losses, gradients, update."""
    model = build_tiny(architecture=architecture)
    batch = tiny_batch(((128, 192),), compact=architecture != "PanopticFPN")
    with PretendGpu() as gpu, EventStorage():
        model.to("cuda").train()
        trainer = choose_train_step(model, [batch], build_optimizer(model, "SGD"))
        trainer.iter = 0
        with gpu.counting() as waits:
            trainer.run_step()
    return waits


def _own(waits: Waits) -> dict[str, int]:
    return {wait.line: count for wait, count in waits.items() if wait.line.startswith("panoptic_fpn_ext")}


def test_waits_of_a_prediction():
    waits = inference_waits("PanopticFPNExt")
    assert sum(_own(waits).values()) <= 2, _own(waits)
    assert waits.total() <= 40, waits
    assert inference_waits("PanopticFPN").total() > 500


def test_waits_after_the_detector_do_not_grow_with_what_it_found():
    model = build_tiny(crowded).eval()
    with PretendGpu() as gpu, torch.no_grad():
        model.to("cuda")
        raw = model.raw_outputs(draw_images((64, 96), (96, 64)))
        for instances, logits, size in zip(raw.instances, raw.sem_seg_logits, raw.image_sizes, strict=True):
            for count in (0, 1, 100):
                with gpu.counting() as waits:
                    model._postprocess_one(instances[:count], logits, size, {"height": 111, "width": 99})
                assert waits.total() <= 2, waits


def test_waits_of_a_training_step():
    ours, theirs = training_waits("PanopticFPNExt"), training_waits("PanopticFPN")
    assert sum(_own(ours).values()) <= 5, _own(ours)  # uploads of targets, a check of their labels, the losses
    assert ours.total() <= 70 and ours.total() < theirs.total(), (ours, theirs.total())


def test_a_hidden_wait_is_counted(monkeypatch: pytest.MonkeyPatch):
    from panoptic_fpn_ext.modeling.postprocessing import masks

    def asking(*args: Any) -> torch.Tensor:
        mask = paste_mask(*args)
        bool(mask.any())
        return mask

    paste_mask = masks.paste_mask
    monkeypatch.setattr(masks, "paste_mask", asking)
    waits = inference_waits("PanopticFPNExt")
    assert waits.total() > 100
    assert any(wait.line.startswith(f"{__name__}:") and count == 100 for wait, count in waits.items())


def test_the_gpu_itself():
    with PretendGpu() as gpu:
        x = torch.ones(3, device="cuda")
        assert isinstance(x, GpuTensor) and x.is_cuda and x.device == torch.device("cuda", 0)
        for fault in (
            lambda: x + torch.ones(3),
            lambda: torch.ones(3)[x.long()],
            x.numpy,
            lambda: torch.stack([x, x.cpu()]),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                fault()
        assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]
        with gpu.counting() as waits:
            x.sum().item()
            x[x > 0]
            torch.ones(3).to(x)
            x[[0, 1]]
            torch.cuda.synchronize()
        assert sorted(wait.kind for wait in waits.elements()) == ["read", "size", "synchronize", "upload", "upload"]
        assert all(wait.line.startswith(f"{__name__}:") for wait in waits)
    assert torch.cuda.is_available() is False or torch.cuda.device_count() > 0


if __name__ == "__main__":
    sys.stdout.write("| waits of the host | detectron2 | ours | in our own lines |\n|---|---|---|---|\n")
    for what, count in (("prediction, 100 candidates", inference_waits), ("training step", training_waits)):
        theirs, ours = count("PanopticFPN"), count("PanopticFPNExt")
        sys.stdout.write(f"| {what} | {theirs.total()} | {ours.total()} | {sum(_own(ours).values())} |\n")
