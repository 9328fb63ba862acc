"""The RPN's head that takes one image at a time against detectron2's."""

import pytest
import torch
from accelerated import accelerated
from detectron2.modeling.proposal_generator import StandardRPNHead

from panoptic_fpn_ext.modeling.acceleration import rpn_head
from panoptic_fpn_ext.modeling.acceleration.rpn_head import PerImageRPNHead


def _heads(**arguments) -> tuple[StandardRPNHead, PerImageRPNHead]:
    theirs = StandardRPNHead(**{"in_channels": 16, "num_anchors": 3, **arguments}).train()
    return theirs, accelerated(theirs, PerImageRPNHead)


def _gradients(head: StandardRPNHead, levels: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    levels = [level.clone().requires_grad_() for level in levels]
    objectness, deltas = head(levels)
    outputs = [*objectness, *deltas]
    sum((output * torch.linspace(-1, 1, output.shape[-1])).square().sum() for output in outputs).backward()
    return outputs, [level.grad for level in levels] + [parameter.grad for parameter in head.parameters()]


@pytest.mark.parametrize("is_large", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("arguments", [{}, {"box_dim": 5}, {"conv_dims": [8, -1]}])
def test_same_predictions_and_gradients(arguments, batch, is_large, monkeypatch):
    monkeypatch.setattr(rpn_head, "_LARGE", 0 if is_large else 2**20)
    levels = [torch.randn(batch, 16, 12, 20), torch.randn(batch, 16, 6, 10)]
    (expected, expected_gradients), (found, gradients) = (_gradients(head, levels) for head in _heads(**arguments))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def test_inference_parameters_and_other_heads():
    theirs, ours = _heads()
    levels = [torch.randn(2, 16, 6, 10)]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours.eval()(levels), theirs.eval()(levels), rtol=0, atol=0)

    class Other(StandardRPNHead):
        """Someone else's head."""

    assert type(accelerated(Other(in_channels=16, num_anchors=3), PerImageRPNHead)) is Other
