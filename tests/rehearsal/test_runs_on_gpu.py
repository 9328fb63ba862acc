"""Trainings that are resumed on another device, in another precision, by another step."""

import copy
from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage
from pretend_gpu import PretendGpu, on_host
from rehearsed_models import trained

from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.training.train_step import TrainStep


@pytest.mark.slow
def test_a_run_moves_to_the_gpu_and_back(tiny_cfg: CfgNode):
    """Training, all evaluators and checkpoints, each run resumed on the other device."""
    weights = trained(tiny_cfg)
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cuda", 4
    with PretendGpu():
        trained(tiny_cfg, resume=True)
        model = Trainer.build_model(tiny_cfg)
        model.load_state_dict(torch.load(weights)["model"])
        results = Trainer.test(tiny_cfg, model)
    saved = torch.load(weights, weights_only=True)
    assert saved["iteration"] == 3 and all(type(value) is torch.Tensor for value in saved["model"].values())
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cpu", 5
    model = Trainer.build_model(tiny_cfg)
    model.load_state_dict(saved["model"])
    expected = Trainer.test(tiny_cfg, model)
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    trained(tiny_cfg, resume=True)
    for task, figures in expected.items():
        assert results[task] == pytest.approx(figures, nan_ok=True, abs=1e-3), task


def test_a_run_in_half_precision_moves_to_the_gpu(tiny_cfg: CfgNode):
    """On a CPU it is bfloat16, without a scale of the losses."""
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.DATASETS.TEST = True, 0, ()
    trained(tiny_cfg)
    tiny_cfg.MODEL.DEVICE, tiny_cfg.SOLVER.MAX_ITER = "cuda", 3
    with PretendGpu(seen_as="cpu"):
        saved = torch.load(trained(tiny_cfg, resume=True), weights_only=False)
    assert saved["iteration"] == 2
    # The first scale may be too much for float16: then it is halved, and that step changes nothing.
    assert saved["trainer"]["_trainer"]["grad_scaler"]["scale"] in (2**15, 2**16)


class _Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        found = self.layer(torch.stack(batch).to(self.layer.weight.device)).float()
        return {"loss": found.square().mean() / 1000}  # small enough for the first scale of float16


STEPS: dict[str, Callable[..., SimpleTrainer]] = {
    "SimpleTrainer": SimpleTrainer,
    "AMPTrainer": AMPTrainer,
    "full precision": TrainStep,
    "two micro-batches": lambda *args: TrainStep(*args, accumulate_steps=2),
    "bfloat16": lambda *args: TrainStep(*args, precision=torch.bfloat16),
    "float16": lambda *args: TrainStep(*args, precision=torch.float16),
}


@pytest.mark.parametrize("writer", STEPS)
@pytest.mark.parametrize("reader", [name for name in STEPS if name != "AMPTrainer"])
def test_any_step_goes_on_where_another_stopped(writer: str, reader: str):
    with PretendGpu(seen_as="cpu"):
        step = _line_step(writer)
        step.iter = 7
        _run(step)
        written = copy.deepcopy(step.state_dict())
        step = _line_step(reader)
        step.load_state_dict(written)
        assert step.iter == 7
        _run(step)


def _line_step(name: str) -> SimpleTrainer:
    model = _Line().to("cuda")
    return STEPS[name](model, [[torch.ones(2)] * 2], torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))


def _run(step: SimpleTrainer) -> None:
    before = copy.deepcopy(on_host(step.model.layer.weight))
    with EventStorage(step.iter):
        step.run_step()
    assert not torch.equal(before, on_host(step.model.layer.weight))
