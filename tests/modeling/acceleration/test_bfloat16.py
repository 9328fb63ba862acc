"""Optimised models whose layers compute in bfloat16, on a CPU that is said to have it."""

import pytest
import torch
from small_models import built, tiny_batch, tiny_cfg

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.modeling.acceleration import inference
from panoptic_fpn_ext.modeling.acceleration.bfloat16 import use_bfloat16
from panoptic_fpn_ext.modeling.acceleration.replace import Place

TOLERANCE = 0.06  # of the largest logit


def _model(architecture: str) -> torch.nn.Module:
    cfg = tiny_cfg(architecture)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 10
    torch.manual_seed(0)
    return built(cfg).eval()


@pytest.mark.parametrize("architecture", ["PanopticFPNExt", "PanopticFPN"])
def test_layers_compute_in_bfloat16_and_coordinates_in_float32(architecture, monkeypatch):
    monkeypatch.setattr(inference, "cpu_has_bfloat16", lambda: True)
    model = _model(architecture)
    reduced = optimize_for_inference(model, tiny_batch(), precision="bfloat16")
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
    layers = [module for module in reduced.modules() if isinstance(module, kinds)]
    assert layers and {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    assert {buffer.dtype for buffer in reduced.buffers()} <= {torch.float32, torch.int64}  # anchors, means
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    seen = []
    reduced.backbone.fpn_output2.register_forward_hook(lambda layer, x, y: seen.append(y.dtype))
    with torch.no_grad():
        for found, expected in zip(reduced(tiny_batch()), model(tiny_batch()), strict=True):
            logits = expected["sem_seg"]
            assert found["sem_seg"].dtype == found["instances"].scores.dtype == torch.float32
            assert (found["sem_seg"] - logits).abs().max() < TOLERANCE * logits.abs().max()
            assert found["instances"].pred_boxes.tensor.dtype == torch.float32
            assert found["instances"].scores[0].item() == pytest.approx(expected["instances"].scores[0].item(), rel=0.1)
    assert seen == [torch.bfloat16]


def test_one_layer():
    layer = torch.nn.Linear(3, 2)
    weight = layer.weight.detach().clone()
    assert use_bfloat16(Place(layer)) is layer
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    torch.testing.assert_close(layer.weight.float(), weight, rtol=2**-8, atol=0)


def test_what_the_cpu_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(inference, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(ValueError, match=r"no products of bfloat16 .*leave precision at float32"):
        optimize_for_inference(_model("PanopticFPNExt"), precision="bfloat16")
    with pytest.raises(ValueError, match="float32, bfloat16, got 'int8'"):
        optimize_for_inference(_model("PanopticFPNExt"), precision="int8")
