"""1 - IoU of each class in each image, against loops, by hand, and in the semantic head."""

import pytest
import torch
from oracles import jaccard_loss_plain

from panoptic_fpn_ext.modeling.jaccard_loss import jaccard_loss


def _case(s, h=3, w=4, labelled=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, h, w, generator=generator, dtype=torch.float64) * 4
    targets = torch.randint(0, 4, (2, h * s, w * s), generator=generator)  # the last class is never shown
    targets[torch.rand(targets.shape, generator=generator) > labelled] = 255
    return logits, targets


def _with_gradient(function, logits, targets, s):
    x = logits.clone().requires_grad_()
    loss = function(x, targets, s, 255)
    loss.backward()
    return loss.detach(), x.grad


@pytest.mark.parametrize("s", [1, 2, 4])
@pytest.mark.parametrize("labelled", [1.0, 0.7, 0.05])
def test_equals_loops(s, labelled):
    case = _case(s, labelled=labelled)
    for found, expected in zip(*(_with_gradient(f, *case, s) for f in (jaccard_loss, jaccard_loss_plain)), strict=True):
        torch.testing.assert_close(found, expected)


def test_by_hand():
    """Class 0 is right on 2 of 3 px and class 1 covers its own and one more; the second image has no label."""
    targets = torch.tensor([[[0, 0, 0, 1]], [[255, 255, 255, 255]]])
    labels = torch.tensor([[[0, 0, 1, 1]], [[0, 1, 0, 1]]])
    logits = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2) * 1000.0
    assert jaccard_loss(logits, targets, 1, 255) == pytest.approx(((1 - 2 / 3) + (1 - 1 / 2)) / 2 / 2)
    assert jaccard_loss(logits[:1], labels[:1], 1, 255) == 0


def test_shares_of_a_logit_are_met_exactly():
    """Three of the four px of a logit are of class 0, one of class 1: those probabilities have no loss."""
    logits = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1)
    assert jaccard_loss(logits, torch.tensor([[[0, 0], [0, 1]]]), 2, 255) == pytest.approx(0, abs=1e-6)


def test_without_a_label_it_is_zero_with_zero_gradient():
    loss, gradient = _with_gradient(jaccard_loss, *_case(2, labelled=-1.0), 2)
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, targets = _case(4)
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jaccard_loss(logits, targets, 4, 255)
    assert found.dtype == torch.float32
    assert found == jaccard_loss(logits.float(), targets, 4, 255)


def test_it_learns():
    logits, targets = _case(2)
    x = logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], 0.2)
    before = float(jaccard_loss(x, targets, 2, 255))
    for _ in range(200):
        optimizer.zero_grad()
        loss = jaccard_loss(x, targets, 2, 255)
        loss.backward()
        optimizer.step()
    assert float(loss) < before / 4
