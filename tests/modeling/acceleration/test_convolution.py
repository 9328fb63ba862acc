"""Convolutions of optimised models against PyTorch's, whichever algorithm is the faster one here."""

import pytest
import torch
from accelerated import accelerated
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from panoptic_fpn_ext.modeling.acceleration import winograd
from panoptic_fpn_ext.modeling.acceleration.convolution import NarrowingConv2d, use_channels_last
from panoptic_fpn_ext.modeling.acceleration.winograd import ALGORITHMS, FastestConv2d, share_choices

SHAPES = [(1, 16, 40, 56), (1, 3, 13, 17), (2, 16, 33, 20), (30, 16, 14, 14), (1, 5, 1, 1), (3, 4, 2, 3)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def _fastest(model: nn.Module) -> nn.Module:
    faster = accelerated(model, FastestConv2d)
    share_choices(faster)
    return faster


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
    monkeypatch.setattr(winograd, "fastest_algorithm", lambda *_: algorithm)
    conv = _fastest(conv)
    assert isinstance(conv, FastestConv2d)
    _assert_close(conv(x), expected)
    assert list(conv.choices.values()) == [algorithm]


def test_what_is_measured_once_serves_similar_sizes_and_convolutions(monkeypatch):
    measured = []
    monkeypatch.setattr(winograd, "fastest_algorithm", lambda x, *_: measured.append(x.shape) or "direct")
    model = _fastest(nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))))
    for size in [(40, 50), (41, 49), (80, 100), (81, 99)]:
        model(torch.randn(1, 4, *size))
    assert measured == [(1, 4, 40, 50), (1, 4, 80, 100)]


def test_measuring_finds_an_algorithm():
    assert winograd.fastest_algorithm(torch.randn(2, 4, 20, 20), torch.randn(4, 4, 3, 3), None) in ALGORITHMS


def test_without_winograd_the_direct_algorithm_does_it(monkeypatch):
    monkeypatch.setattr(winograd, "_winograd_is_available", lambda: False)
    x, weight = torch.randn(2, 4, 20, 20), torch.randn(4, 4, 3, 3)
    assert winograd.fastest_algorithm(x, weight, None) == "direct"
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
    assert type(_fastest(conv)) is nn.Conv2d


@pytest.mark.parametrize("shape", [(0, 4, 14, 14), (0, 4, 1, 1)])
def test_no_rois(shape):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    model = accelerated(_fastest(model), NarrowingConv2d)
    assert model(torch.randn(shape)).shape == (0, 2, *shape[2:])


def test_other_precisions():
    conv = _fastest(nn.Conv2d(4, 4, 3, padding=1))
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
    conv = accelerated(conv, NarrowingConv2d)
    assert type(conv) is NarrowingConv2d
    _assert_close(conv(x), expected)


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2d])
def test_channels_last(kind):
    conv, x = kind(6, 8, 3, stride=2).requires_grad_(False), torch.randn(2, 6, 9, 12)
    faster = accelerated(conv, use_channels_last)
    assert faster.weight.is_contiguous(memory_format=torch.channels_last)
    _assert_close(faster(x), conv(x))
