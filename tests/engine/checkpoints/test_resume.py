"""``--resume`` after a change of what the optimizer trains, or how."""

import logging

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from torch import nn

from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.checkpoints.resume import Resumable, fitting_state

CHANGES = [
    (["SOLVER.OPTIMIZER", "SGD"], "another optimizer"),
    (["MODEL.BACKBONE.FREEZE_AT", 3], "other parameters"),
    (["SOLVER.BIAS_LR_FACTOR", 2.0], "other parameters"),
    (["SOLVER.BASE_LR", 0.5], "with a base of 0.002; that of the config, 0.5, holds"),
    (["SOLVER.WEIGHT_DECAY", 0.5], "The weight decay goes on as the checkpoint has it, 0.02; that of the config, 0.5,"),
    (["SOLVER.BACKBONE_MULTIPLIER", 0.5], "other parameters"),
    (["SOLVER.AMP.ENABLED", True], None),
    (["SOLVER.CLIP_GRADIENTS.ENABLED", False], None),
]


def _trained(cfg: CfgNode) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize(("opts", "words"), CHANGES, ids=lambda value: str(value[0]) if isinstance(value, list) else "")
def test_goes_on_and_says_what_starts_afresh(tiny_cfg, opts, words, caplog):
    tiny_cfg.DATASETS.TEST = ()
    tiny_cfg.SOLVER.MAX_ITER = 1
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME, tiny_cfg.SOLVER.STEPS = "WarmupMultiStepLR", ()
    before = _trained(tiny_cfg)
    tiny_cfg.SOLVER.MAX_ITER = 3
    tiny_cfg.merge_from_list(opts)
    with caplog.at_level(logging.WARNING):
        after = _trained(tiny_cfg)
    said = [r.getMessage() for r in caplog.records if r.name == "panoptic_fpn_ext.engine.checkpoints.resume"]
    assert len(said) == (words is not None)
    assert all(words in message for message in said)
    assert after.start_iter == 1
    assert after.iter == 3
    assert torch.isfinite(next(iter(after.model.parameters()))).all()
    base = before.cfg.SOLVER.BASE_LR if "SOLVER.BASE_LR" not in opts else 0.002
    assert after.optimizer.param_groups[0]["lr"] == pytest.approx(base)


def test_says_which_rate_of_the_backbone_goes_on(tiny_cfg, caplog):
    tiny_cfg.DATASETS.TEST, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.BACKBONE_MULTIPLIER = (), 1, 0.5
    _trained(tiny_cfg)
    tiny_cfg.SOLVER.BACKBONE_MULTIPLIER = 0.25
    with caplog.at_level(logging.WARNING):
        Trainer(tiny_cfg).resume_or_load(resume=True)
    (said,) = (r.getMessage() for r in caplog.records if r.name == "panoptic_fpn_ext.engine.checkpoints.resume")
    assert "with a base of 0.001; that of the config, 0.0005" in said and "SOLVER.BACKBONE_MULTIPLIER" in said


def _step(optimizer_class: type, lr: float, frozen: bool = False) -> SimpleTrainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(not frozen)
    parameters = [p for p in model.parameters() if p.requires_grad]
    trainer = SimpleTrainer(model, [], optimizer_class(parameters, lr=lr))
    model(torch.ones(1, 2)).sum().backward()
    trainer.optimizer.step()
    trainer.iter = 7
    return trainer


def test_nothing_changes_where_nothing_changed(caplog):
    old, new = _step(torch.optim.AdamW, 0.1), _step(torch.optim.AdamW, 0.1)
    state = old.state_dict()
    found = fitting_state(state, new)
    assert found.keys() == state.keys()
    assert found["optimizer"] is state["optimizer"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("new_class", "frozen"), [(torch.optim.SGD, False), (torch.optim.AdamW, True), (torch.optim.SGD, True)]
)
def test_trainers_of_lazy_configs(new_class, frozen, caplog):
    state, new = _step(torch.optim.AdamW, 0.1).state_dict(), _step(new_class, 0.02, frozen)
    Resumable(new).load_state_dict(state)
    assert "the optimizer starts afresh" in caplog.text
    assert new.iter == 7
    assert new.optimizer.param_groups[0]["lr"] == 0.02
    assert Resumable(new).state_dict().keys() == new.state_dict().keys()


def test_parameters_of_another_shape_with_the_same_number(caplog):
    state, new = _step(torch.optim.AdamW, 0.1).state_dict(), _step(torch.optim.AdamW, 0.1)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(5, 5)
    Resumable(new).load_state_dict(state)
    assert "other shapes" in caplog.text


def test_a_schedule_that_was_changed_holds_at_once(tiny_cfg, caplog):
    """From the first iteration on, the rates are those of a run that always had it."""

    def after_four_iterations(max_iter: int) -> Trainer:
        tiny_cfg.SOLVER.LR_SCHEDULER_NAME, tiny_cfg.SOLVER.MAX_ITER = "WarmupCosineLR", max_iter
        trainer = Trainer(tiny_cfg)
        trainer.optimizer.step()
        for _ in range(4):
            trainer.scheduler.step()
        return trainer

    short, long = after_four_iterations(10), after_four_iterations(20)
    rates = [[group["lr"] for group in one.optimizer.param_groups] for one in (short, long)]
    assert rates[0] != rates[1]
    long.load_state_dict(short.state_dict())
    assert [group["lr"] for group in long.optimizer.param_groups] == rates[1]
    assert "as of another schedule (SOLVER.MAX_ITER" in caplog.text
    caplog.clear()
    short.load_state_dict(short.state_dict())
    assert [group["lr"] for group in short.optimizer.param_groups] == rates[0]
    assert "another schedule" not in caplog.text
