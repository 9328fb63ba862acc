"""Heads of optimised models against detectron2's: pooling of all levels, box head, mask head."""

import pytest
import torch
from accelerated import accelerated
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances
from torch import nn

from panoptic_fpn_ext.modeling.acceleration.box_head import ChannelsLastFlatten, ChannelsLastROIPooler
from panoptic_fpn_ext.modeling.acceleration.mask_head import PredictedClassMaskHead
from panoptic_fpn_ext.modeling.acceleration.roi_align import GatheringROIAlign

STRIDES = (4, 8, 16)
CHANNELS = 6


def _pooler(output_size: int | tuple[int, int] = 7, strides=STRIDES, kind: str = "ROIAlignV2") -> ROIPooler:
    return ROIPooler(output_size, [1 / stride for stride in strides], 0, kind)


def _optimize(pooler: ROIPooler) -> ROIPooler:
    return accelerated(pooler, GatheringROIAlign, ChannelsLastROIPooler)


def _maps(batch: int, strides=STRIDES) -> list[torch.Tensor]:
    return [torch.randn(batch, CHANNELS, 192 // stride, 256 // stride) for stride in strides]


def _boxes(*counts: int) -> list[Boxes]:
    corners = (torch.rand(sum(counts), 2, 2) * torch.tensor([256.0, 192.0])).sort(dim=1).values.flatten(1)
    return [Boxes(part) for part in corners.split(counts)]


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("strides", [STRIDES, (8,)])
@pytest.mark.parametrize("counts", [(300,), (40, 0, 300), (3, 1), (0, 0)])
def test_pooler(counts, strides, kind):
    pooler = _pooler(strides=strides, kind=kind)
    maps, boxes = _maps(len(counts), strides), _boxes(*counts)
    found = _optimize(pooler)(maps, boxes)
    torch.testing.assert_close(found, pooler(maps, boxes), rtol=0, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("strides", [STRIDES, (8,)])
def test_boxes_without_a_size(strides):
    """Such boxes have no level: detectron2 gives zeros, or pools from its only level."""
    pooler = _pooler(strides=strides)
    inverted = torch.tensor([[50.0, 10, 20, 60], [10, 10, 10, 10]]).repeat(40, 1)
    maps, boxes = _maps(1, strides), [Boxes(torch.cat([inverted, _boxes(40)[0].tensor]))]
    torch.full((120, 7, 7, CHANNELS), 123.0)  # what new memory may hold
    torch.testing.assert_close(_optimize(pooler)(maps, boxes), pooler(maps, boxes), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pooler_where_it_cannot_gather(dtype):
    pooler = _pooler(kind="ROIPool" if dtype == torch.float32 else "ROIAlignV2")
    optimized = accelerated(pooler, ChannelsLastROIPooler)
    maps, boxes = [level.to(dtype) for level in _maps(1)], _boxes(30)
    assert torch.equal(optimized(maps, boxes), pooler(maps, boxes))


@pytest.mark.parametrize("conv_dims", [[], [12]])
@pytest.mark.parametrize("size", [(7, 7), (3, 5)])
def test_box_head(size, conv_dims):
    roi_heads = nn.Module()
    roi_heads.box_pooler = _pooler(size)
    shape = ShapeSpec(channels=CHANNELS, height=size[0], width=size[1])
    roi_heads.box_head = nn.ModuleList(
        [FastRCNNConvFCHead(shape, conv_dims=conv_dims, fc_dims=[10, 8]) for _ in range(2)]
    )
    optimized = roi_heads
    for _ in range(2):  # the second time there is nothing left to do
        optimized = accelerated(optimized, ChannelsLastFlatten)
    x = torch.randn(9, CHANNELS, *size)
    for layout in (torch.contiguous_format, torch.channels_last):
        for ours, theirs in zip(optimized.box_head, roi_heads.box_head, strict=True):
            torch.testing.assert_close(ours(x.contiguous(memory_format=layout)), theirs(x))


def _instances(*counts: int, classes: int) -> list[Instances]:
    return [Instances((9, 9), pred_classes=torch.randint(0, classes, (count,))) for count in counts]


@pytest.mark.parametrize("num_classes", [5, 1])
@pytest.mark.parametrize("counts", [(3,), (20, 0, 9), (0,)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_mask_head(layout, counts, num_classes):
    shape = ShapeSpec(channels=CHANNELS, height=14, width=10)
    theirs = MaskRCNNConvUpsampleHead(shape, num_classes=num_classes, conv_dims=[12, 8]).eval()
    nn.init.normal_(theirs.predictor.weight)
    nn.init.normal_(theirs.predictor.bias)
    nn.init.normal_(theirs.deconv.bias)
    ours = accelerated(theirs, PredictedClassMaskHead)
    x = torch.randn(sum(counts), CHANNELS, 14, 10).contiguous(memory_format=layout)
    expected, found = (_instances(*counts, classes=5) for _ in range(2))
    for one, other in zip(expected, found, strict=True):
        other.pred_classes = one.pred_classes
    theirs(x, expected)
    assert ours(x, found) is found
    for one, other in zip(found, expected, strict=True):
        assert one.pred_masks.shape == (len(other), 1, 28, 20)
        torch.testing.assert_close(one.pred_masks, other.pred_masks)
