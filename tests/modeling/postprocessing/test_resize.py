"""Two bilinear steps as one."""

import pytest
import torch
from oracles import upsample_plain

from panoptic_fpn_ext.modeling.postprocessing import composed_taps, resize, upsample_sem_seg_logits


def test_taps_of_a_plain_doubling():
    taps = composed_taps(3, stride=2, crop=6, out=6, device="cpu")
    assert taps.source.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]
    assert taps.weight[:3].tolist() == [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0]]


def test_nothing_beyond_the_crop_but_what_the_upsampling_mixed_in():
    # Pixels 0 and 1 of the network input are at logits 0 and 0.25; the second step never looks further.
    taps = composed_taps(4, stride=2, crop=2, out=8, device="cpu")
    assert (taps.weight * taps.source).sum(dim=1).max() == 0.25


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_weights_are_a_mean(stride, length):
    for crop in range(1, length * stride + 1, 3):
        for out in (1, 2, 5, 40):
            taps = composed_taps(length, stride, crop, out, "cpu")
            assert taps.source.shape == taps.weight.shape == (out, 3)
            assert (taps.weight >= 0).all()
            assert (taps.source.diff(dim=1) >= 0).all()
            assert 0 <= taps.source.min() <= taps.source.max() < length
            torch.testing.assert_close(taps.weight.sum(dim=1), torch.ones(out))


@pytest.mark.parametrize(
    ("logits_size", "stride", "image_size", "output_size"),
    [
        ((8, 10), 4, (32, 40), (32, 40)),
        ((8, 10), 4, (29, 33), (57, 71)),
        ((8, 10), 4, (29, 33), (11, 7)),
        ((8, 10), 4, (1, 1), (5, 5)),
        ((8, 10), 1, (7, 9), (1, 1)),
        ((1, 1), 4, (3, 2), (6, 4)),
        ((3, 50), 8, (17, 400), (200, 31)),
    ],
)
@pytest.mark.parametrize("num_classes", [1, 5])
def test_same_as_two_steps(logits_size, stride, image_size, output_size, num_classes):
    logits = torch.randn(num_classes, *logits_size) * 10
    expected = upsample_plain(logits, stride, image_size, output_size)
    for given in (logits, logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        ours = upsample_sem_seg_logits(given, stride, image_size, output_size)
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_logits_with_a_gradient():
    logits = torch.randn(2, 3, 4, dtype=torch.float32, requires_grad=True)
    upsample_sem_seg_logits(logits, 4, (11, 15), (9, 20)).square().sum().backward()
    ours, logits.grad = logits.grad, None
    upsample_plain(logits, 4, (11, 15), (9, 20)).square().sum().backward()
    torch.testing.assert_close(ours, logits.grad)


def test_half_precision_is_resized_in_float32():
    logits = torch.randn(3, 5, 6).half()
    ours = upsample_sem_seg_logits(logits, 4, (20, 22), (31, 17))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, upsample_plain(logits, 4, (20, 22), (31, 17)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_of_less_precision_are_not_used(monkeypatch, precision):
    monkeypatch.setattr(torch, "mm", torch.mm if precision == "highest" else None)
    logits, before = torch.randn(3, 5, 6), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        ours = upsample_sem_seg_logits(logits, 4, (20, 22), (31, 17))
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(ours, upsample_plain(logits, 4, (20, 22), (31, 17)), rtol=0, atol=1e-5)


def test_many_rows_at_once_and_few(monkeypatch):
    logits = torch.randn(4, 23, 19) * 10
    whole = upsample_sem_seg_logits(logits, 4, (90, 75), (131, 217))
    monkeypatch.setattr(resize, "_TILE_VALUES", 1)
    monkeypatch.setattr(resize, "_BLOCK_COLUMNS", 5)
    torch.testing.assert_close(upsample_sem_seg_logits(logits, 4, (90, 75), (131, 217)), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_stays_as_detectron2_has_it(value):
    logits = torch.randn(3, 5, 6)
    logits[1], logits[2, 3, 3] = value, value
    ours, theirs = (f(logits, 4, (20, 22), (31, 17)) for f in (upsample_sem_seg_logits, upsample_plain))
    torch.testing.assert_close(ours, theirs, equal_nan=True)
