"""``SOLVER.EMA``: the average itself, what is evaluated and saved of it, and going on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input_data import global_state_restored
from config_files import CONFIGS
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from torch import nn

from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer
from panoptic_fpn_ext.engine.checkpoints.weight_average import WeightAverage
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config
from panoptic_fpn_ext.engine.lazy_training import train_lazily

NAME = WeightAverage.__qualname__


def _averaging(cfg: CfgNode, iterations: int, **options: Any) -> CfgNode:
    cfg = cfg.clone()
    cfg.merge_from_list(["SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5, "SOLVER.MAX_ITER", iterations])
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    return cfg


def _trained(cfg: CfgNode, resume: bool = False) -> tuple[Trainer, list[dict[str, torch.Tensor]]]:
    """A trainer at its end, and the weights before the first and after each iteration."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)

    def weights() -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in trainer.model.state_dict().items()}

    seen = [weights()]
    run_step = trainer.run_step

    def step() -> None:
        run_step()
        seen.append(weights())

    trainer.run_step = step
    trainer.train()
    return trainer, seen


def _saved(cfg: CfgNode) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path(cfg.OUTPUT_DIR, "model_final.pth"), weights_only=True)
    return found


def _same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_average_is_saved_and_evaluated_and_training_goes_on_without_it(tiny_cfg):
    cfg = _averaging(tiny_cfg, 4)
    trainer, (first, *seen) = _trained(cfg)
    expected = {name: value.double() if value.is_floating_point() else value for name, value in first.items()}
    for n, weights in enumerate(seen):
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in weights.items():
            mean = decay * expected[name] + (1 - decay) * value
            expected[name] = mean if value.is_floating_point() else value
    saved = _saved(cfg)
    for name, value in saved["model"].items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-4, atol=1e-6)
    statistics = [name for name in first if name.endswith(("running_mean", "num_batches_tracked"))]
    assert len(statistics) > 10
    assert not any(torch.equal(saved["model"][name], first[name]) for name in statistics)
    assert _same(trainer.model.state_dict(), seen[-1])
    assert _same(saved["trainer"]["hooks"][NAME]["trained"], seen[-1])
    assert not _same(saved["model"], seen[-1])

    model = Trainer.build_model(cfg)
    PanopticCheckpointer(model, complete=True).load(str(Path(cfg.OUTPUT_DIR, "model_final.pth")))
    assert Trainer.test(cfg, model)["panoptic_seg"] == trainer._last_eval_results["panoptic_seg"]


def test_resumed_it_ends_as_undisturbed(tiny_cfg, tmp_path):
    """Bit by bit, weights and average, with an evaluation on the way."""
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME, tiny_cfg.SOLVER.STEPS = "WarmupMultiStepLR", ()
    tiny_cfg.OUTPUT_DIR, tiny_cfg.TEST.EVAL_PERIOD = str(tmp_path / "undisturbed"), 2
    _trained(_averaging(tiny_cfg, 1))
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "resumed")
    _trained(_averaging(tiny_cfg, 4), resume=True)
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "resumed")
    for stop in (3, 4):
        _trained(_averaging(tiny_cfg, stop), resume=True)
    _assert_equal_ends(tmp_path)


def _assert_equal_ends(folder: Path) -> None:
    first, second = (torch.load(folder / name / "model_final.pth") for name in ("undisturbed", "resumed"))
    assert _same(first["model"], second["model"])
    states = [content["trainer"]["hooks"][NAME] for content in (first, second)]
    assert states[0]["updates"] == states[1]["updates"] > 2
    assert _same(states[0]["trained"], states[1]["trained"])
    assert not _same(states[0]["trained"], first["model"])


def test_switched_off_and_on_between_two_runs(tiny_cfg, caplog):
    tiny_cfg.DATASETS.TEST = ()
    _, seen = _trained(_averaging(tiny_cfg, 1))
    cfg = _averaging(tiny_cfg, 2, **{"SOLVER.EMA.ENABLED": False})
    with caplog.at_level("INFO"):
        _, (start, end) = _trained(cfg, resume=True)
    assert "goes on without it" in caplog.text
    assert _same(start, seen[-1])
    assert _same(_saved(cfg)["model"], end)
    cfg = _averaging(tiny_cfg, 3)
    _, (start, after) = _trained(cfg, resume=True)
    assert _same(start, end)
    name = "sem_seg_head.predictor.bias"  # the first update has a decay of 0.1
    torch.testing.assert_close(_saved(cfg)["model"][name], 0.1 * start[name] + 0.9 * after[name])


def test_lazily(street_datasets, tmp_path):
    train, val = street_datasets
    overrides = [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={val}"]
    overrides += ["dataloader.train.mapper.augmentations.0.short_edge_length=[64]", "train.ema.enabled=True"]
    overrides += ["dataloader.test.mapper.augmentations.0.short_edge_length=64", "dataloader.train.total_batch_size=2"]
    overrides += ["lr_multiplier.scheduler.end_value=1.0", "lr_multiplier.warmup_length=0.0"]
    config = str(CONFIGS / "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")

    def trained(name: str, stop: int) -> dict[str, Any]:
        more = [f"train.output_dir={tmp_path / name}", f"train.max_iter={stop}"]
        return train_lazily(load_lazy_config(config, [*overrides, *more], []), resume=True)

    with global_state_restored():
        trained("undisturbed", 1)
        shutil.copytree(tmp_path / "undisturbed", tmp_path / "resumed")
        trained("undisturbed", 3)
        trained("resumed", 2)
        assert "PQ" in trained("resumed", 3)["panoptic_seg"]
    _assert_equal_ends(tmp_path)


def test_decays():
    with pytest.raises(ValueError, match=r"SOLVER\.EMA\.DECAY .*got 1"):
        WeightAverage(nn.Linear(1, 1), 1)
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.0)
    trainer = SimpleTrainer(model, [], torch.optim.SGD(model.parameters(), lr=1.0))
    trainer.register_hooks([average])
    average.before_train()
    with torch.no_grad():
        model.weight += 1
    average.after_step()
    assert _same(average.model_state(), model.state_dict())  # nothing is remembered
