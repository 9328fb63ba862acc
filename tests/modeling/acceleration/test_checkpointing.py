"""Activations that are computed again against those that are kept."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from small_models import built, tiny_batch, tiny_cfg, training_step

from panoptic_fpn_ext.modeling import accelerate_training


def test_checkpointed_activations_give_the_same_gradients():
    cfg = tiny_cfg()
    plain = training_step(built(cfg), tiny_batch())
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    model = built(cfg)
    assert list(model.state_dict()) == list(built(tiny_cfg()).state_dict())
    runs = []
    block = model.backbone.bottom_up.res4[0]
    block.conv1.register_forward_hook(lambda *_: runs.append(1))
    checkpointed = training_step(model, tiny_batch())
    assert len(runs) == 2  # once forward, once again for the backward pass
    assert plain[0] == checkpointed[0]
    assert all(torch.allclose(plain[1][k], checkpointed[1][k]) for k in plain[1])


def test_a_copy_of_a_checkpointed_model_is_independent():
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    model = built(cfg)
    clone = copy.deepcopy(model)
    before = training_step(model, tiny_batch())[0]
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    assert training_step(clone, tiny_batch())[0] == before


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_checkpointing_refuses_norms_that_learn_statistics(norm):
    cfg = tiny_cfg()
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = norm, 0
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    with pytest.raises(ValueError, match=r"MODEL\.RESNETS\.NORM"):
        build_model(cfg)


def test_checkpointing_refuses_other_backbones():
    with pytest.raises(ValueError, match="works with ResNets, got Conv2d"):
        accelerate_training(torch.nn.Conv2d(3, 3, 1), checkpoint_activations=True)


def test_checkpointing_refuses_other_backbones_below_a_pyramid():
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_efficientnet_lite0_fpn_backbone"
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    with pytest.raises(ValueError, match="works with ResNets, got EfficientNetLite"):
        build_model(cfg)


def test_both_networks_are_checkpointed():
    cfg = tiny_cfg("SeparatePanopticNetworks")
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True
    model, runs = built(cfg), []
    for backbone in (model.backbone, model.semantic_backbone):
        backbone.bottom_up.res4[0].conv1.register_forward_hook(lambda *_: runs.append(1))
    training_step(model, tiny_batch())
    assert len(runs) == 4
