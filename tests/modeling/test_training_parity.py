"""The training step of our network against detectron2's, with the same weights and the same random choices."""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.modeling.backbone.training import checkpoint_activations, normalize_in_place


def _built(cfg):
    torch.manual_seed(0)
    return build_model(cfg).train()


def _step(model, batch):
    torch.manual_seed(1)
    with EventStorage():
        losses = model(copy.deepcopy(batch))
    sum(losses.values()).backward()
    return {k: v.detach() for k, v in losses.items()}, {
        k: p.grad for k, p in model.named_parameters() if p.grad is not None
    }


def _assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], rtol=1e-3, atol=1e-4 * float(gradient.abs().max() + 1e-6), msg=name
        )


def test_losses_and_gradients_equal_detectron2s():
    builtin, ours = _built(tiny_cfg("PanopticFPN")), _built(tiny_cfg())
    assert list(builtin.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(builtin.state_dict())
    _assert_same(_step(ours, tiny_batch()), _step(builtin, tiny_batch(compact=False)))


@pytest.mark.parametrize("head", ["StandardROIHeads", "CascadeROIHeads"])
def test_compact_masks_teach_what_bit_masks_teach(head):
    cfg = tiny_cfg()
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = head, head == "CascadeROIHeads"
    model = _built(cfg)
    compact, _ = _step(model, tiny_batch())
    plain, _ = _step(model, tiny_batch(compact=False))
    assert compact == plain


def test_norms_in_place_change_nothing():
    plain, in_place = (_built(tiny_cfg("PanopticFPN")) for _ in range(2))
    normalize_in_place(in_place.backbone)
    norms = [m for m in in_place.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(type(m) is not FrozenBatchNorm2d for m in norms)
    for model in (plain, in_place):
        for norm in model.modules():
            if isinstance(norm, FrozenBatchNorm2d):
                generator = torch.Generator().manual_seed(norm.num_features)
                norm.weight.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
                norm.bias.copy_(torch.rand(norm.num_features, generator=generator))
    one, other = _step(plain, tiny_batch()), _step(in_place, tiny_batch())
    assert one[0] == other[0] and all(torch.equal(one[1][k], other[1][k]) for k in one[1])


def test_checkpointed_activations_give_the_same_gradients():
    cfg = tiny_cfg()
    plain = _step(_built(cfg), tiny_batch())
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    model = _built(cfg)
    assert list(model.state_dict()) == list(_built(tiny_cfg()).state_dict())
    runs = []
    block = model.backbone.bottom_up.res4[0]
    block.conv1.register_forward_hook(lambda *_: runs.append(1))
    checkpointed = _step(model, tiny_batch())
    assert len(runs) == 2  # once forward, once again for the backward pass
    assert plain[0] == checkpointed[0]
    assert all(torch.allclose(plain[1][k], checkpointed[1][k]) for k in plain[1])


def test_a_copy_of_a_checkpointed_model_is_independent():
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    model = _built(cfg)
    clone = copy.deepcopy(model)
    before = _step(model, tiny_batch())[0]
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    assert _step(clone, tiny_batch())[0] == before


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_checkpointing_refuses_norms_that_learn_statistics(norm):
    cfg = tiny_cfg()
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = norm, 0
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    with pytest.raises(ValueError, match=r"MODEL\.RESNETS\.NORM"):
        build_model(cfg)


def test_checkpointing_refuses_other_backbones():
    with pytest.raises(ValueError, match="works with ResNets, got Conv2d"):
        checkpoint_activations(torch.nn.Conv2d(3, 3, 1))
