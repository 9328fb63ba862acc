import pytest
import torch
from oracles import upsampled_cross_entropy_plain

from panoptic_fpn_ext.modeling import losses
from panoptic_fpn_ext.modeling.losses import upsampled_cross_entropy


def _case(n=2, c=5, h=6, w=8, s=4, seed=0, dtype=torch.float32, labelled=0.8):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, c, h, w, generator=generator, dtype=torch.float64) * 4).to(dtype)
    targets = torch.randint(0, c, (n, h * s, w * s), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) > labelled] = 255
    return logits, targets, s


def _both(logits, targets, s):
    results = []
    for function in (upsampled_cross_entropy, upsampled_cross_entropy_plain):
        x = logits.clone().requires_grad_()
        loss = function(x, targets, s, 255)
        loss.backward()
        results.append((loss.detach(), x.grad))
    return results


@pytest.mark.parametrize("s", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("h, w", [(1, 1), (1, 9), (7, 3), (5, 17), (4, 16)])
def test_equals_the_plain_loss(h, w, s):
    (loss, gradient), (expected, expected_gradient) = _both(*_case(h=h, w=w, s=s, dtype=torch.float64))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tile_bytes", [1, 5000, 2**30])
def test_tiles_and_threads_change_nothing(monkeypatch, threads, tile_bytes):
    monkeypatch.setitem(losses._TILE_BYTES, "cpu", tile_bytes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (loss, gradient), (expected, expected_gradient) = _both(*_case(h=11, w=9))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("h, w, s", [(3, 5, 4), (2, 2, 3)])
def test_gradcheck(h, w, s):
    logits, targets, s = _case(n=1, c=3, h=h, w=w, s=s, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: upsampled_cross_entropy(x, targets, s, 255), (logits.requires_grad_(),))


def test_nothing_labelled_teaches_nothing():
    logits, targets, s = _case(labelled=-1)
    x = logits.requires_grad_()
    loss = upsampled_cross_entropy(x, targets, s, 255)
    loss.backward()
    assert loss == 0 and x.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    (loss, gradient), (expected, expected_gradient) = _both(*_case(dtype=dtype))
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_autocast_does_not_reach_into_it():
    logits, targets, s = _case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = upsampled_cross_entropy(logits, targets, s, 255)
    torch.testing.assert_close(loss, upsampled_cross_entropy_plain(logits, targets, s, 255))


def test_large_logits_stay_finite():
    logits, targets, s = _case()
    (loss, gradient), (expected, expected_gradient) = _both(logits * 1e4, targets, s)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_backward_pass_can_be_repeated():
    logits, targets, s = _case()
    x = logits.requires_grad_()
    loss = upsampled_cross_entropy(x, targets, s, 255)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, x)
    torch.testing.assert_close(3 * first, second)


def test_without_a_gradient():
    logits, targets, s = _case()
    torch.testing.assert_close(
        upsampled_cross_entropy(logits, targets, s, 255), upsampled_cross_entropy_plain(logits, targets, s, 255)
    )


@pytest.mark.parametrize("label", [5, 300, -1])
def test_an_unknown_label_is_named_with_the_key_to_set(label):
    logits, targets, s = _case()
    targets[1, 3, 4] = label
    with pytest.raises(ValueError, match=rf"Target {label} is out of bounds.*MODEL\.SEM_SEG_HEAD\.NUM_CLASSES"):
        upsampled_cross_entropy(logits, targets, s, 255)


def test_any_ignore_label():
    logits, targets, s = _case()
    torch.testing.assert_close(
        upsampled_cross_entropy(logits, torch.where(targets == 255, -1, targets), s, -1),
        upsampled_cross_entropy(logits, targets, s, 255),
    )


def test_targets_of_another_size_are_refused():
    logits, targets, s = _case()
    with pytest.raises(ValueError, match=r"\(2, 24, 32\)"):
        upsampled_cross_entropy(logits, targets[:, :-1], s, 255)
