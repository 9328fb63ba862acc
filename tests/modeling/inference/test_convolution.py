"""Convolutions of optimised models against PyTorch's, whichever algorithm is the faster one here."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn import functional as F

from panoptic_fpn_ext.modeling.inference import convolution
from panoptic_fpn_ext.modeling.inference.batch_norm import fold_batch_norms
from panoptic_fpn_ext.modeling.inference.convolution import ALGORITHMS, FastestConv2d, use_fastest_convolutions
from panoptic_fpn_ext.modeling.inference.pointwise import NarrowingConv2d, use_products_for_narrowing_convolutions

SHAPES = [(1, 16, 40, 56), (1, 3, 13, 17), (2, 16, 33, 20), (30, 16, 14, 14), (1, 5, 1, 1), (3, 4, 2, 3)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def _assert_close(ours: torch.Tensor, plain: torch.Tensor) -> None:
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= 1e-4 * plain.abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_all_algorithms_agree(algorithm, shape, layout, bias):
    x = torch.randn(shape).contiguous(memory_format=layout)
    conv = nn.Conv2d(shape[1], 24, 3, padding=1, bias=bias).requires_grad_(False)
    _assert_close(ALGORITHMS[algorithm](x, conv.weight, conv.bias), conv(x))


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_norm_and_activation_follow(algorithm, monkeypatch):
    conv = Conv2d(8, 12, 3, padding=1, norm=nn.GroupNorm(4, 12), activation=F.relu).requires_grad_(False)
    x = torch.randn(2, 8, 20, 24)
    expected = conv(x)
    monkeypatch.setattr(convolution, "fastest_algorithm", lambda *_: algorithm)
    use_fastest_convolutions(conv)
    assert isinstance(conv, FastestConv2d)
    _assert_close(conv(x), expected)
    assert list(conv.choices.values()) == [algorithm]


def test_what_is_measured_once_serves_similar_sizes_and_convolutions(monkeypatch):
    measured = []
    monkeypatch.setattr(convolution, "fastest_algorithm", lambda x, *_: measured.append(x.shape) or "direct")
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)))
    use_fastest_convolutions(model)
    for size in [(40, 50), (41, 49), (80, 100), (81, 99)]:
        model(torch.randn(1, 4, *size))
    assert measured == [(1, 4, 40, 50), (1, 4, 80, 100)]


def test_measuring_finds_an_algorithm():
    assert convolution.fastest_algorithm(torch.randn(2, 4, 20, 20), torch.randn(4, 4, 3, 3), None) in ALGORITHMS


def test_without_winograd_the_direct_algorithm_does_it(monkeypatch):
    monkeypatch.setattr(convolution, "_winograd_is_available", lambda: False)
    x, weight = torch.randn(2, 4, 20, 20), torch.randn(4, 4, 3, 3)
    assert convolution.fastest_algorithm(x, weight, None) == "direct"
    assert torch.equal(ALGORITHMS["winograd"](x, weight, None), F.conv2d(x, weight, padding=1))


def test_what_winograd_does_not_support_is_convolved_directly():
    x, weight = torch.randn(1, 4, 20, 20).double(), torch.randn(4, 4, 3, 3).double()
    assert torch.equal(ALGORITHMS["winograd"](x, weight, None), F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"dilation": 2, "padding": 2}, {"groups": 4}, {"padding": 0}, {"padding_mode": "reflect"}],
)
def test_other_geometries_keep_their_convolution(options):
    conv = nn.Conv2d(4, 4, 3, **{"padding": 1, **options})
    use_fastest_convolutions(conv)
    assert type(conv) is nn.Conv2d


@pytest.mark.parametrize("shape", [(0, 4, 14, 14), (0, 4, 1, 1)])
def test_no_rois(shape):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    use_fastest_convolutions(model)
    use_products_for_narrowing_convolutions(model)
    assert model(torch.randn(shape)).shape == (0, 2, *shape[2:])


def test_other_precisions():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    use_fastest_convolutions(conv)
    assert conv.double()(torch.randn(1, 4, 8, 8).double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.float()(torch.randn(1, 4, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_products(batch, layout, bias):
    conv = Conv2d(16, 8, 1, bias=bias, activation=F.relu).requires_grad_(False)
    x = torch.randn(batch, 16, 9, 7).contiguous(memory_format=layout)
    expected = conv(x)
    use_products_for_narrowing_convolutions(conv)
    assert type(conv) is NarrowingConv2d
    _assert_close(conv(x), expected)


def _lively(norm: nn.Module) -> nn.Module:
    """Statistics and scales that are not trivial."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.is_floating_point():
            values.data.uniform_(0.5, 2.0) if name != "bias" else values.data.normal_()
    return norm.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [FrozenBatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)])
def test_folding_keeps_the_result(norm, bias):
    conv = Conv2d(4, 6, 3, bias=bias, norm=_lively(norm), activation=F.relu).eval()
    x = torch.randn(2, 4, 9, 9)
    expected = conv(x)
    fold_batch_norms(conv)
    assert conv.norm is None
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.BatchNorm2d(6, track_running_stats=False)])
def test_norms_that_depend_on_the_image_stay(norm):
    conv = Conv2d(4, 6, 3, norm=norm).eval()
    fold_batch_norms(conv)
    assert conv.norm is norm
