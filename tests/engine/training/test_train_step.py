import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg
from torch import nn

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine.training.train_step import TrainStep, build_train_step


class Line(nn.Module):
    """Squared distance of w·x to y, averaged over the batch it gets."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))
        self.sizes, self.dtypes = [], []

    def forward(self, batch):
        self.sizes.append(len(batch))
        x, y = (torch.tensor([d[k] for d in batch]) for k in "xy")
        self.dtypes.append((x[None] @ x[:, None]).dtype)
        return {"loss": ((self.w * x - y) ** 2).mean()}


BATCH = [{"x": float(i), "y": 1.0} for i in range(6)]


def _run(step):
    step.iter = 0
    with EventStorage() as storage:
        step.run_step()
        return {k: v[0] for k, v in storage.latest().items()}


def _step(model, **kwargs):
    return TrainStep(model, [BATCH], torch.optim.SGD(model.parameters(), 0.01), **kwargs)


@pytest.mark.parametrize("steps, sizes", [(1, [6]), (2, [3, 3]), (6, [1] * 6)])
def test_micro_batches_add_up_to_the_batch(steps, sizes):
    model, reference = Line(), Line()
    logged = _run(_step(model, accumulate_steps=steps))
    expected = _run(SimpleTrainer(reference, [BATCH], torch.optim.SGD(reference.parameters(), 0.01)))
    assert model.sizes == sizes
    assert logged["total_loss"] == pytest.approx(expected["total_loss"])
    assert model.w.item() == pytest.approx(reference.w.item())


def test_a_batch_that_cannot_be_split():
    with pytest.raises(ValueError, match=r"6 images .*ACCUMULATE_STEPS = 4"):
        _run(_step(Line(), accumulate_steps=4))


def test_bfloat16_on_a_cpu():
    model = Line()
    _run(_step(model, precision=torch.bfloat16))
    assert model.dtypes == [torch.bfloat16] and model.w.grad.dtype == torch.float32


def test_state_goes_round():
    step = _step(Line())
    step.iter = 5
    state = step.state_dict()
    other = _step(Line())
    other.load_state_dict(copy.deepcopy(state))
    assert other.iter == 5 and "grad_scaler" not in state


@pytest.mark.parametrize(
    "keys, kind, precision",
    [
        ({}, TrainStep, None),
        ({"ACCUMULATE_STEPS": 2}, TrainStep, None),
        ({"AMP.ENABLED": True}, TrainStep, torch.bfloat16),
    ],
)
def test_keys_choose_the_step(keys, kind, precision):
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    for key, value in keys.items():
        cfg.merge_from_list([f"SOLVER.{key}", value])
    model = Line()
    step = build_train_step(cfg, model, [BATCH], torch.optim.SGD(model.parameters(), 0.01))
    assert type(step) is kind
    if kind is TrainStep:
        assert step.precision == precision and step.accumulate_steps == cfg.SOLVER.ACCUMULATE_STEPS


@pytest.mark.parametrize("steps", [0, 3])
def test_steps_that_do_not_divide_the_batch(steps):
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.SOLVER.ACCUMULATE_STEPS = steps
    with pytest.raises(ValueError, match=r"divisor of SOLVER\.IMS_PER_BATCH = 16, got"):
        build_train_step(cfg, Line(), [BATCH], None)


def test_the_network_trains_in_bfloat16_and_micro_batches():
    torch.manual_seed(0)
    model = build_model(tiny_cfg()).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    step = TrainStep(model, [tiny_batch()], optimizer, accumulate_steps=2, precision=torch.bfloat16)
    logged = _run(step)
    assert {"loss_sem_seg", "loss_mask", "loss_rpn_cls"} <= logged.keys()
    after = model.state_dict()
    assert all(torch.isfinite(v).all() for v in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith("backbone.bottom_up.res5"))
