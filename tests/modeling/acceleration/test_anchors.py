"""Anchors made on a GPU."""

import copy

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from pretend_gpu import PretendGpu, on_host

from panoptic_fpn_ext.modeling.acceleration.anchors import OnDeviceAnchorGenerator
from panoptic_fpn_ext.modeling.acceleration.replace import take_over

SIZES = [(1, 1), (7, 3), (25, 34), (1, 5), (200, 336)]


@pytest.mark.parametrize("strides", [[4, 8, 16, 32, 64], [3, 7, 12, 25, 100]])
@pytest.mark.parametrize("offset", [0.0, 0.5, 0.3, 0.999])
def test_same_anchors_as_detectron2(offset, strides):
    """To the last bit where centres are whole or half pixels."""
    theirs = DefaultAnchorGenerator(
        sizes=[[32], [64, 80], [128], [256], [512]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides, offset=offset
    )
    ours = take_over(OnDeviceAnchorGenerator, copy.deepcopy(theirs))
    expected = [boxes.tensor for boxes in theirs([torch.empty(2, 1, *size) for size in SIZES])]
    on_cpu = [boxes.tensor for boxes in ours([torch.empty(2, 1, *size) for size in SIZES])]
    assert all(torch.equal(a, b) for a, b in zip(on_cpu, expected, strict=True))
    with PretendGpu() as gpu:
        features = [torch.empty(2, 1, *size, device="cuda") for size in SIZES]
        ours.to("cuda")
        with gpu.counting() as waits:
            on_gpu = on_host([boxes.tensor for boxes in ours(features)])
    assert not waits
    tolerance = 0 if offset in (0.0, 0.5) else 1e-3
    torch.testing.assert_close(on_gpu, expected, rtol=0, atol=tolerance)
