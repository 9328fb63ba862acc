"""The training step of our network against detectron2's, with the same weights and the same random choices."""

import pytest
import torch
from small_models import built, tiny_batch, tiny_cfg, training_step


def _assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], rtol=1e-3, atol=1e-4 * float(gradient.abs().max() + 1e-6), msg=name
        )


def test_losses_and_gradients_equal_detectron2s():
    builtin, ours = built(tiny_cfg("PanopticFPN")), built(tiny_cfg())
    assert list(builtin.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(builtin.state_dict())
    _assert_same(training_step(ours, tiny_batch()), training_step(builtin, tiny_batch(compact=False)))


@pytest.mark.parametrize("head", ["StandardROIHeads", "CascadeROIHeads"])
def test_compact_masks_teach_what_bit_masks_teach(head):
    cfg = tiny_cfg()
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = head, head == "CascadeROIHeads"
    model = built(cfg)
    compact, _ = training_step(model, tiny_batch())
    plain, _ = training_step(model, tiny_batch(compact=False))
    assert compact == plain
