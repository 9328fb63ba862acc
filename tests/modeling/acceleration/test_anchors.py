"""Anchors made on the device."""

import copy

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from panoptic_fpn_ext.modeling.acceleration.anchors import OnDeviceAnchorGenerator
from panoptic_fpn_ext.modeling.acceleration.replace import take_over

SIZES = [(1, 1), (7, 3), (25, 34), (0, 5), (200, 336)]


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.3, 0.999])
@pytest.mark.parametrize("strides", [[4, 8, 16, 32, 64], [3, 7, 12, 25, 100]])
def test_same_anchors_as_detectron2(offset, strides):
    theirs = DefaultAnchorGenerator(
        sizes=[[32], [64, 80], [128], [256], [512]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides, offset=offset
    )
    features = [torch.empty(2, 1, *size) for size in SIZES]
    expected = [boxes.tensor for boxes in theirs(features)]
    ours = [boxes.tensor for boxes in take_over(OnDeviceAnchorGenerator, copy.deepcopy(theirs))(features)]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
