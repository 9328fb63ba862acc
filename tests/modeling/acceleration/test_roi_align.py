"""RoIAlign by sums of feature vectors against torchvision's operator."""

import pytest
import torch
from accelerated import accelerated
from detectron2.layers import ROIAlign

from panoptic_fpn_ext.modeling.acceleration import roi_align
from panoptic_fpn_ext.modeling.acceleration.roi_align import (
    GatheringROIAlign,
    Sampling,
    TrainingROIAlign,
    scatter_gradients,
)

STRIDE = 4
SAMPLING = Sampling(1 / STRIDE, 0, True)


def _rois(count: int, batch: int, size: tuple[int, int]) -> torch.Tensor:
    """RoIs of all sizes and aspects, a fifth of each beyond the image, and one without extent."""
    corners = (torch.rand(count, 2, 2) * 1.4 - 0.2) * torch.tensor([size[1], size[0]]) * STRIDE
    corners[0] = 5.0
    corners = corners.sort(dim=1).values.flatten(1)
    return torch.cat([torch.randint(batch, (count, 1)).float(), corners], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (2, 9), (40, 3)])
@pytest.mark.parametrize(("cells", "ratio"), [(7, 0), (14, 0), (7, 1), (7, 2), (5, 3)])
def test_same_as_torchvision(cells, ratio, size, layout, aligned):
    features = torch.randn(2, 5, *size).contiguous(memory_format=layout)
    rois = _rois(150, 2, size)
    pooler = ROIAlign((cells, cells), 1 / STRIDE, ratio, aligned)
    expected = pooler(features, rois)
    faster = accelerated(pooler, GatheringROIAlign)
    torch.testing.assert_close(faster(features, rois), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (2, 9), (40, 3)])
@pytest.mark.parametrize("ratio", [0, 2])
def test_same_gradients_as_torchvision(ratio, size, layout, aligned):
    features = torch.randn(2, 5, *size).contiguous(memory_format=layout).requires_grad_()
    rois, gradient = _rois(150, 2, size), torch.randn(150, 5, 7, 7)
    gradients = []
    for kind in (ROIAlign, GatheringROIAlign):
        kind((7, 7), 1 / STRIDE, ratio, aligned)(features, rois).backward(gradient)
        gradients.append(features.grad)
        features.grad = None
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-3)


def test_gradients_of_rois_that_see_nothing():
    outside = torch.tensor([[0.0, 900.0, 900.0, 950.0, 950.0]]).repeat(30, 1)
    gradient = scatter_gradients(torch.ones(30, 3, 7, 7), torch.Size([1, 3, 5, 6]), outside, SAMPLING)
    assert gradient.shape == (1, 3, 5, 6) and not gradient.any()


def test_gradients_are_the_same_each_time():
    rois, gradient = _rois(150, 2, (13, 17)), torch.randn(150, 5, 7, 7)
    first, second = (scatter_gradients(gradient, torch.Size([2, 5, 13, 17]), rois, SAMPLING) for _ in range(2))
    assert torch.equal(first, second)


def test_poolers_of_roi_heads():
    heads = torch.nn.ModuleList([ROIAlign((7, 7), 1 / STRIDE, 0), torch.nn.Identity()])
    heads = accelerated(heads, TrainingROIAlign)
    assert [type(module) for module in heads] == [TrainingROIAlign, torch.nn.Identity]
    features, rois = torch.randn(2, 5, 9, 13), _rois(150, 2, (9, 13))
    theirs, ours = (
        ROIAlign((7, 7), 1 / STRIDE, 0)(features, rois),
        GatheringROIAlign((7, 7), 1 / STRIDE, 0)(features, rois),
    )
    assert torch.equal(heads.train()[0](features, rois), ours)
    assert torch.equal(heads.eval()[0](features, rois), theirs)


def test_one_number_of_cells_and_other_defaults():
    features, rois = torch.randn(1, 3, 9, 9, requires_grad=True), _rois(40, 1, (9, 9))
    expected = ROIAlign(7, 1 / STRIDE, 0)(features, rois)
    torch.set_default_dtype(torch.float64)
    try:
        found = GatheringROIAlign(7, 1 / STRIDE, 0)(features, rois)
        found.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_tracing_sees_torchvisions_operator():
    pooler, features = GatheringROIAlign((7, 7), 1 / STRIDE, 0), torch.randn(1, 3, 9, 9)
    traced = torch.jit.trace(pooler, (features, _rois(40, 1, (9, 9))))
    other = _rois(70, 1, (9, 9))
    torch.testing.assert_close(traced(features, other), pooler(features, other), rtol=0, atol=1e-4)


def test_in_parts(monkeypatch):
    features, rois = torch.randn(1, 5, 20, 20), _rois(40, 1, (20, 20))
    pooler = GatheringROIAlign((7, 7), 1 / STRIDE, 0)
    whole = pooler(features, rois)
    monkeypatch.setattr(roi_align, "_CHUNK_TAPS", 1)
    assert torch.equal(pooler(features, rois), whole)


@pytest.mark.parametrize("count", [0, 1])
def test_few_rois_on_a_large_map(count):
    features, rois = torch.randn(1, 3, 64, 64), _rois(2, 1, (64, 64))[:count]
    assert torch.equal(
        GatheringROIAlign((7, 7), 1 / STRIDE, 0)(features, rois), ROIAlign((7, 7), 1 / STRIDE, 0)(features, rois)
    )


def test_what_it_leaves_to_torchvision():
    features, rois = torch.randn(1, 3, 9, 9, dtype=torch.float64), _rois(30, 1, (9, 9))
    arguments = (7, 7), 1 / STRIDE, 0
    assert torch.equal(GatheringROIAlign(*arguments)(features, rois), ROIAlign(*arguments)(features, rois))
