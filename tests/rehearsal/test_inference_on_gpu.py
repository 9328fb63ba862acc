"""Predictions on a pretended GPU are those of the CPU."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from pretend_gpu import GpuTensor, PretendGpu, on_host
from rehearsed_models import (
    Change,
    all_categories,
    as_it_is,
    assert_close,
    build_tiny,
    cascade,
    draw_images,
    panoptic_only,
    split,
    trained,
    two_networks,
)

from panoptic_fpn_ext.engine import PanopticPredictor


def _plain(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs as containers of tensors and numbers."""
    found = [dict(output) for output in on_host(outputs)]
    for output in found:
        if "panoptic_seg" in output:
            panoptic_seg, segments = output["panoptic_seg"]
            output["panoptic_seg"] = panoptic_seg, [{k: v for k, v in s.items() if k != "name"} for s in segments]
        if "instances" in output:
            instances = output.pop("instances")
            output["boxes"] = on_host(instances.pred_boxes.tensor)
            output |= {k: on_host(v) for k, v in instances.get_fields().items() if k != "pred_boxes"}
    return found


@torch.no_grad()
@pytest.mark.parametrize("change", [as_it_is, cascade, two_networks, all_categories, panoptic_only, split])
def test_predictions_are_those_of_the_cpu(change: Change):
    model, inputs = build_tiny(change).eval(), draw_images((64, 96), (96, 64))
    inputs[1]["height"] = 150
    expected = _plain(model(inputs))
    with PretendGpu():
        outputs = copy.deepcopy(model).to("cuda")(inputs)
        assert isinstance(outputs[0]["panoptic_seg"][0], GpuTensor)
    assert_close(_plain(outputs), expected)
    assert len(expected[0]["panoptic_seg"][1]) > 4


@torch.no_grad()
def test_empty_boxes_leave_no_row():
    """Given boxes, as test-time augmentation gives them, may lie outside of the image."""
    model, inputs = build_tiny().eval(), draw_images((64, 96))
    given = model(inputs)[0]["instances"][:3]
    given.remove("pred_masks")
    given.pred_boxes.tensor[1] = torch.tensor([-9.0, -9, -1, -1])
    expected = _plain(model.inference(inputs, [given]))
    with PretendGpu():
        outputs = _plain(copy.deepcopy(model).to("cuda").inference(inputs, [given]))
    assert_close(outputs, expected)
    assert len(expected[0]["boxes"]) == 2


@torch.no_grad()
def test_proposals_of_the_inputs():
    """They come from a file, so from the CPU, where no RPN makes them."""
    model, inputs = build_tiny().eval(), draw_images((64, 96))
    model.proposal_generator = None
    proposals = Instances((64, 96), proposal_boxes=Boxes(torch.tensor([[8.0, 8, 40, 40], [30, 20, 90, 60]])))
    proposals.objectness_logits = torch.ones(2)
    inputs[0]["proposals"] = proposals
    expected = _plain(model(inputs))
    with PretendGpu():
        outputs = _plain(copy.deepcopy(model).to("cuda")(inputs))
    assert_close(outputs, expected)
    assert len(expected[0]["boxes"]) > 0


@torch.no_grad()
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_predictions_in_half_precision(precision: torch.dtype):
    """By CUDA's list of operators; the numbers are rough, the types must fit."""
    model, inputs = build_tiny().eval(), draw_images((64, 96))
    with PretendGpu(seen_as="cuda"), torch.autocast("cuda", precision):
        output = on_host(copy.deepcopy(model).to("cuda")(inputs))[0]
    panoptic_seg, segments = output["panoptic_seg"]
    assert set(panoptic_seg.unique().tolist()) - {0} == {segment["id"] for segment in segments}
    assert output["sem_seg"].dtype == torch.float32
    expected = model(inputs)[0]["sem_seg"]
    assert (output["sem_seg"].argmax(0) == expected.argmax(0)).float().mean() > 0.9


def test_the_predictor(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.WEIGHTS = trained(tiny_cfg)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = _plain([PanopticPredictor(tiny_cfg)(image)])
    tiny_cfg.MODEL.DEVICE = "cuda"
    with PretendGpu():
        predictor = PanopticPredictor(tiny_cfg)
        assert predictor.model.device.type == "cuda"
        assert_close(_plain([predictor(image)]), expected)
