"""A signal ends a training with a checkpoint wherever it comes between the first iteration and the last."""

import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase, hooks
from torch import nn

from panoptic_fpn_ext.command import Interrupted
from panoptic_fpn_ext.engine import PanopticCheckpointer
from panoptic_fpn_ext.engine.training.interruption import with_stop


class _Signalled(HookBase):
    """Tells its own process to end, in one of the steps of an iteration."""

    def __init__(self, step: str, iteration: int) -> None:
        setattr(self, step, lambda: self._tell(iteration))

    def _tell(self, iteration: int) -> None:
        if self.trainer.iter == iteration:
            os.kill(os.getpid(), signal.SIGINT)


class _Training(TrainerBase):
    def __init__(self, folder: Path, place: int, told: HookBase, evaluate=dict) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)
        checkpointer = PanopticCheckpointer(self.model, str(folder), trainer=self)
        found = [None, hooks.EvalHook(2, evaluate)]
        found.insert(place, told)
        self.register_hooks(with_stop(found, checkpointer))

    def run_step(self) -> None:
        pass


@pytest.mark.parametrize(
    ("step", "place", "stopped_after"),
    [("before_step", 0, 4), ("after_step", 0, 4), ("after_step", 2, 5)],
    ids=["in an iteration", "before an evaluation", "where iterations are logged"],
)
def test_a_signal_between_the_first_and_the_last(tmp_path: Path, step: str, place: int, stopped_after: int):
    """The iteration that runs, or the next one, is the last, and is saved."""
    former = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    training = _Training(tmp_path, place, _Signalled(step, 3))
    with pytest.raises(Interrupted, match=f"Stopped after iteration {stopped_after} of 9, which is saved"):
        training.train(0, 9)
    content = torch.load(tmp_path / f"model_{stopped_after - 1:07d}.pth", weights_only=True)
    assert content["iteration"] == stopped_after - 1
    assert signal.getsignal(signal.SIGINT) is former


def test_a_signal_in_an_evaluation_ends_it_at_once(tmp_path: Path):
    def evaluate() -> dict:
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(Interrupted) as raised:
        _Training(tmp_path, 0, HookBase(), evaluate).train(0, 9)
    assert not str(raised.value) and not list(tmp_path.glob("*.pth"))


def test_a_signal_after_the_last_iteration_is_heard(tmp_path: Path):
    with pytest.raises(Interrupted):
        _Training(tmp_path, 2, _Signalled("after_step", 2)).train(0, 3)
