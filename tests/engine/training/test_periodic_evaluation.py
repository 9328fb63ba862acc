"""Evaluations within a training are not lost, and the best weights so far stay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import TrainerBase, hooks
from torch import nn

from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer
from panoptic_fpn_ext.engine import lazy_training as lazy_module
from panoptic_fpn_ext.engine.training.periodic_evaluation import Best, PeriodicEvaluation

FIGURES = {2: 10.0, 4: 30.0, 6: 20.0, 8: float("nan"), 9: 25.0}  # by iterations


class _Killed(BaseException):
    """As kill -9."""


class _Counting(TrainerBase):
    """Its only weight is the number of iterations."""

    def __init__(self, folder: Path, best: Best, kill_in_evaluation: int | None = None, most: int = 9) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.evaluated: list[int] = []
        self.most, self._kill = most, kill_in_evaluation
        self.checkpointer = PanopticCheckpointer(self.model, str(folder), trainer=self)
        periodic = hooks.PeriodicCheckpointer(self.checkpointer, 1)
        self.register_hooks([periodic, PeriodicEvaluation(2, self._evaluate, self.checkpointer, best)])

    def _evaluate(self) -> dict[str, Any]:
        done = int(self.model.weight)
        if done == self._kill:
            raise _Killed
        self.evaluated.append(done)
        return {"panoptic_seg": {"PQ": FIGURES[done]}}

    def run_step(self) -> None:
        with torch.no_grad():
            self.model.weight += 1

    def go(self) -> "_Counting":
        self.checkpointer.resume_or_load("", resume=True)
        self.train(self.iter + 1 if self.checkpointer.has_checkpoint() else 0, self.most)
        return self


def _best(folder: Path) -> tuple[int, int, float]:
    content = torch.load(folder / "model_best.pth", weights_only=True)
    kept = content["trainer"]["hooks"]["PeriodicEvaluation"]
    assert content["iteration"] == content["trainer"]["iteration"]
    assert kept["best_at"] == content["iteration"] + 1
    return int(content["model"]["weight"]), kept["best_at"], kept["best"]


@pytest.mark.parametrize(
    ("mode", "killed_in", "expected"),
    [
        ("max", (), (4, 4, 30.0)),
        ("min", (4, 9), (2, 2, 10.0)),
        ("max", (4, 6, 9), (4, 4, 30.0)),
        ("max", (2, 2), (4, 4, 30.0)),
    ],
)
def test_the_best_so_far_survives(mode: str, killed_in: tuple[int, ...], expected: Any, tmp_path: Path):
    best, evaluated = Best("panoptic_seg/PQ", mode), []
    for iteration in killed_in:
        trainer = _Counting(tmp_path, best, iteration)
        with pytest.raises(_Killed):
            trainer.go()
        evaluated += trainer.evaluated
    trainer = _Counting(tmp_path, best).go()
    assert evaluated + trainer.evaluated == list(FIGURES)  # none is lost, none is done twice
    assert _best(tmp_path) == expected
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_training_goes_on_from_the_best_weights_of_its_end(tmp_path: Path):
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=4).go()
    for path in tmp_path.glob("model_[0f]*"):
        path.unlink()
    trainer = _Counting(tmp_path, Best("panoptic_seg/PQ")).go()
    assert trainer.start_iter == 4 and trainer.evaluated == [6, 8, 9]


@pytest.mark.parametrize("other", [Best("sem_seg/mIoU"), Best("panoptic_seg/PQ", "min")])
def test_the_best_by_another_figure_does_not_stay(other: Best, tmp_path: Path, caplog):
    """60 of one figure is no bar for another one."""
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=4).go()
    path = tmp_path / "model_0000003.pth"
    content = torch.load(path, weights_only=True)
    content["trainer"]["hooks"]["PeriodicEvaluation"] |= {"best": 60.0, "best_of": other._asdict()}
    torch.save(content, path)
    (tmp_path / "last_checkpoint").write_text(path.name)
    (tmp_path / "last_evaluation.json").unlink()
    _Counting(tmp_path, Best("panoptic_seg/PQ")).go()
    assert "begins anew" in caplog.text and _best(tmp_path) == (4, 4, 30.0)


def test_a_training_that_ended_goes_on_without_another_evaluation(tmp_path: Path, caplog):
    """And still knows the best, which its last checkpoint, written before the evaluation, does not."""
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=4).go()
    trainer = _Counting(tmp_path, Best("panoptic_seg/PQ")).go()
    assert trainer.start_iter == 4 and trainer.evaluated == [6, 8, 9]
    assert _best(tmp_path) == (4, 4, 30.0)
    _Counting(tmp_path, Best()).go()
    assert "model_best.pth, the best by panoptic_seg/PQ (max), stays as it is" in caplog.text
    assert _best(tmp_path) == (4, 4, 30.0)
    assert _Counting(tmp_path, Best("panoptic_seg/PQ")).go().evaluated == [9]
    assert _best(tmp_path) == (4, 4, 30.0)  # 25 does not take its place


@pytest.mark.parametrize("is_there", [False, True], ids=["none", "one of fewer iterations"])
def test_the_last_checkpoint_is_made_up_for(tmp_path: Path, is_there: bool, caplog):
    """Of a training that was killed while it was written."""
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=2).go()
    shorter = (tmp_path / "model_final.pth").read_bytes()
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=4).go()
    expected = torch.load(tmp_path / "model_final.pth", weights_only=True)
    (tmp_path / "model_final.pth").unlink()
    if is_there:
        (tmp_path / "model_final.pth").write_bytes(shorter)
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=4).go()
    found = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert (found["iteration"], found["trainer"]["iteration"]) == (3, expected["trainer"]["iteration"])
    assert found["model"] == expected["model"] and found.keys() == expected.keys()
    caplog.set_level("INFO")
    _Counting(tmp_path, Best("panoptic_seg/PQ"), most=3).go()
    assert "Nothing is left to train: 4 iterations are done, of 3." in caplog.text


def test_a_figure_that_there_is_not(tmp_path: Path, caplog):
    _Counting(tmp_path, Best("panoptic_seg/pq"), most=4).go()
    assert "Did you mean panoptic_seg/PQ?" in caplog.text
    assert not (tmp_path / "model_best.pth").exists()


@pytest.mark.parametrize("metric", ["", "panoptic_seg/PQ"])
def test_both_kinds_of_configs(metric: str, tiny_cfg, street_datasets, tmp_path, monkeypatch):
    figures = iter([3.0, 5.0, 4.0] * 2)
    monkeypatch.setattr(Trainer, "test", lambda *_, **__: {"panoptic_seg": {"PQ": next(figures)}})
    tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.BEST_CHECKPOINTER.METRIC = 1, 3, metric
    Trainer(tiny_cfg).train()
    assert Path(tiny_cfg.OUTPUT_DIR, "model_best.pth").exists() == bool(metric)

    from test_lazy_training import STREET, load_lazy_config, overrides, train_lazily

    augmented: list[bool] = []

    def evaluate_lazily(*_: object, **kwargs: bool) -> dict[str, dict[str, float]]:
        augmented.append(kwargs["with_views"])
        return {"panoptic_seg": {"PQ": next(figures)}}

    monkeypatch.setattr(lazy_module, "evaluate_lazily", evaluate_lazily)
    more = ("train.max_iter=3", "train.eval_period=1", f"train.best_checkpointer.val_metric='{metric}'")
    cfg = load_lazy_config(STREET, overrides(*street_datasets, tmp_path / "lazy", *more), [])
    train_lazily(cfg)
    assert augmented == [False, False, True]
    assert Path(cfg.train.output_dir, "model_best.pth").exists() == bool(metric)
    if metric:
        assert torch.load(Path(cfg.train.output_dir, "model_best.pth"), weights_only=True)["iteration"] == 1


@pytest.mark.parametrize(
    "words", [("METRIC", "PQ"), ("METRIC", "loss/PQ"), ("METRIC", "bbox_TTA/AP"), ("MODE", "most")]
)
def test_settings_that_name_nothing(words: tuple[str, str], tiny_cfg):
    tiny_cfg.merge_from_list([f"SOLVER.BEST_CHECKPOINTER.{words[0]}", words[1]])
    with pytest.raises(ValueError, match=f"BEST_CHECKPOINTER.{words[0]} is '{words[1]}'"):
        Trainer(tiny_cfg)
