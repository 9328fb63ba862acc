"""Optimizers of a config: kinds, and rates and decays of each parameter."""

import pytest
import torch
from detectron2.solver import build_optimizer as build_sgd

from panoptic_fpn_ext.engine import Trainer


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)])
def test_optimizer_key(tiny_cfg, name, kind):
    tiny_cfg.SOLVER.OPTIMIZER = name
    optimizer = Trainer.build_optimizer(tiny_cfg, Trainer.build_model(tiny_cfg))
    assert isinstance(optimizer, kind)
    assert optimizer.defaults["lr"] == tiny_cfg.SOLVER.BASE_LR


def test_unknown_optimizer(tiny_cfg):
    tiny_cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(ValueError, match=r"SOLVER\.OPTIMIZER"):
        Trainer(tiny_cfg)


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_backbone_learns_at_its_own_rate(tiny_cfg, name):
    tiny_cfg.SOLVER.OPTIMIZER, tiny_cfg.SOLVER.BIAS_LR_FACTOR, tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = name, 2.0, True
    model = Trainer.build_model(tiny_cfg)
    plain = Trainer.build_optimizer(tiny_cfg, model)
    tiny_cfg.SOLVER.BACKBONE_MULTIPLIER = 0.25
    slower = Trainer.build_optimizer(tiny_cfg, model)
    rates = [{id(p): g["lr"] for g in o.param_groups for p in g["params"]} for o in (plain, slower)]
    assert len(rates[1]) == sum(p.requires_grad for p in model.parameters())
    for key, p in model.named_parameters():
        share = 0.25 if key.startswith("backbone.bottom_up.") else 1.0
        assert not p.requires_grad or rates[1][id(p)] == share * rates[0][id(p)], key
    with pytest.raises(ValueError, match=r"SOLVER\.BACKBONE_MULTIPLIER.*bottom_up"):
        Trainer.build_optimizer(tiny_cfg, model.sem_seg_head)


def test_sgd_is_that_of_detectron2(tiny_cfg):
    """Groups, defaults and clipping."""
    tiny_cfg.SOLVER.OPTIMIZER, tiny_cfg.SOLVER.NESTEROV, tiny_cfg.SOLVER.WEIGHT_DECAY_NORM = "SGD", True, 0.125
    model = Trainer.build_model(tiny_cfg)
    for tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED in (True, False):
        ours, theirs = Trainer.build_optimizer(tiny_cfg, model), build_sgd(tiny_cfg, model)
        assert ours.defaults == theirs.defaults and type(ours).__bases__ == type(theirs).__bases__
        assert len(ours.param_groups) == len(theirs.param_groups) > 1
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert [id(p) for p in a.pop("params")] == [id(p) for p in b.pop("params")] and a == b


def test_adamw_has_the_factors_of_biases_too(tiny_cfg):
    tiny_cfg.SOLVER.OPTIMIZER, tiny_cfg.SOLVER.BIAS_LR_FACTOR, tiny_cfg.SOLVER.WEIGHT_DECAY_BIAS = "ADAMW", 2.0, 0.25
    model = Trainer.build_model(tiny_cfg)
    groups = {id(p): group for group in Trainer.build_optimizer(tiny_cfg, model).param_groups for p in group["params"]}
    bias, weight = (groups[id(p)] for p in (model.sem_seg_head.predictor.bias, model.sem_seg_head.predictor.weight))
    assert (bias["lr"], bias["weight_decay"]) == (2 * tiny_cfg.SOLVER.BASE_LR, 0.25)
    assert (weight["lr"], weight["weight_decay"]) == (tiny_cfg.SOLVER.BASE_LR, tiny_cfg.SOLVER.WEIGHT_DECAY)
