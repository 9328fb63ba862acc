"""Residual blocks that overwrite their shortcut against detectron2's."""

import pytest
import torch
from accelerated import accelerated
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from torch import nn

from panoptic_fpn_ext.modeling.acceleration import residual
from panoptic_fpn_ext.modeling.acceleration.residual import InPlaceBottleneckBlock


def _stage(blocks: int, in_channels: int, **arguments) -> nn.Sequential:
    strides = [arguments.pop("stride", 1)] + [1] * (blocks - 1)
    stage = ResNet.make_stage(
        BottleneckBlock,
        blocks,
        in_channels=in_channels,
        out_channels=32,
        bottleneck_channels=8,
        norm="",
        stride_per_block=strides,
        **arguments,
    )
    for module in nn.Sequential(*stage).modules():
        if isinstance(module, nn.Conv2d):  # as where a batch norm was folded
            module.bias = nn.Parameter(torch.randn(module.out_channels))
    return nn.Sequential(*stage).requires_grad_(False).eval()


@pytest.mark.parametrize("has_operator", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "arguments", [{"in_channels": 16}, {"in_channels": 16, "stride": 2, "num_groups": 2}, {"in_channels": 32}]
)
def test_same_as_detectron2(arguments, layout, has_operator, monkeypatch):
    monkeypatch.setattr(residual, "_can_add_convolutions", lambda: has_operator)
    original = _stage(3, **arguments)
    optimized = accelerated(original, InPlaceBottleneckBlock).to(memory_format=layout)
    x = torch.randn(2, arguments["in_channels"], 10, 14).contiguous(memory_format=layout)
    before = x.clone()
    torch.testing.assert_close(optimized(x), original(x), rtol=1e-5, atol=1e-4)
    assert torch.equal(x, before)  # the stage before may have returned it


def test_which_blocks_overwrite():
    for in_channels, first in ((16, InPlaceBottleneckBlock), (32, BottleneckBlock)):
        stage = accelerated(_stage(3, in_channels), InPlaceBottleneckBlock)
        assert [type(block) for block in stage] == [first, InPlaceBottleneckBlock, InPlaceBottleneckBlock]


def test_norms_that_stay_stay():
    block = BottleneckBlock(32, 64, bottleneck_channels=32, norm="GN")
    stage = accelerated(nn.Sequential(block), InPlaceBottleneckBlock)
    assert type(stage[0]) is BottleneckBlock


def test_other_precisions_and_gradients():
    expected = _stage(2, 16)
    stage = accelerated(expected, InPlaceBottleneckBlock)
    x = torch.randn(1, 16, 6, 6)
    torch.testing.assert_close(stage.double()(x.double()), expected.double()(x.double()))
    x = torch.randn(1, 16, 6, 6, requires_grad=True)
    stage.float()(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_operator_of_this_pytorch_is_used():
    residual._can_add_convolutions.cache_clear()
    state = torch.get_rng_state()
    assert residual._can_add_convolutions()
    assert torch.equal(torch.get_rng_state(), state)
