"""Steps on what is not finite are skipped, named and kept for a replay."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine import replay as replay_module
from panoptic_fpn_ext.engine.training.train_step import TrainStep


class _Spoilt(nn.Module):
    """A line whose loss is 0 · ∞ on images that say so, and that learns statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.line = nn.Linear(1, 1)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        x = self.line(self.norm(torch.tensor([[d["x"]] for d in batch])))
        gradient = torch.sqrt(x.abs() * batch[0].get("factor", 1.0)).mean()  # at 0, of no finite slope
        return {"loss_a": x.pow(2).mean(), "loss_b": gradient}


def _step(batches: list[Any], **kwargs: Any) -> TrainStep:
    torch.manual_seed(0)
    model = _Spoilt()
    return TrainStep(model, batches, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), **kwargs)


GOOD = [{"x": 1.0, "image_id": 1}, {"x": 2.0, "image_id": 2}]
BAD = {
    "loss": [{"x": float("nan"), "image_id": 3}, {"x": 2.0, "file_name": "b.jpg"}],
    "infinite": [{"x": float("inf"), "image_id": 3}, {"x": 2.0, "file_name": "b.jpg"}],
    "gradient": [{"x": 1.0, "factor": 0.0, "image_id": 3}, {"x": 2.0, "file_name": "b.jpg"}],
}


@pytest.mark.parametrize("kind", list(BAD))
@pytest.mark.parametrize("options", [{}, {"accumulate_steps": 1, "precision": torch.bfloat16}])
def test_a_spoilt_step_changes_nothing(kind: str, options: dict[str, Any]):
    step, undisturbed = _step([GOOD, BAD[kind], GOOD], **options), _step([GOOD, GOOD], **options)
    for one, count in ((step, 3), (undisturbed, 2)):
        with EventStorage():
            for one.iter in range(count):
                one.run_step()
                if one is step:
                    assert (one.skipped is not None) == (one.iter == 1)
                    if one.skipped:
                        assert one.skipped.images == [{"image_id": 3}, {"file_name": "b.jpg"}]
                        assert bool(one.skipped.gradients)
    expected = undisturbed.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in step.model.state_dict().items())


def _spoil(trainer: Trainer, iterations: range) -> None:
    """A hook after which the loss of the masks is not a number."""
    head = trainer._trainer.model.roi_heads.mask_head

    def spoil(module: nn.Module, inputs: Any, output: dict[str, torch.Tensor]) -> Any:
        is_due = trainer.iter in iterations and module.training
        return {k: v * float("nan") for k, v in output.items()} if is_due else None

    head.register_forward_hook(spoil)


def test_goes_on_and_can_be_replayed(tiny_cfg, caplog, capsys):
    tiny_cfg.DATASETS.TEST, tiny_cfg.SOLVER.MAX_ITER = (), 3
    trainer = Trainer(tiny_cfg)
    _spoil(trainer, range(1, 2))
    with caplog.at_level(logging.WARNING):
        trainer.train()
    (said,) = [r.getMessage() for r in caplog.records if "not finite" in r.getMessage() or "is nan" in r.getMessage()]
    assert "Iteration 2: loss_mask is nan, with the images " in said and ".png" in said
    assert all(torch.isfinite(v).all() for v in trainer.model.state_dict().values() if v.is_floating_point())
    path = Path(tiny_cfg.OUTPUT_DIR, "non_finite/iteration_0000001.pth")
    assert str(path) in said
    (path.parents[1] / "config.yaml").write_text(tiny_cfg.dump())
    assert replay_module.main([str(path)]) == 0  # nothing spoils it here
    saved, shown = torch.load(path, weights_only=True), capsys.readouterr().out
    finite = {name: value for name, value in saved["losses"][0].items() if name != "loss_mask"}
    assert len(finite) >= 5 and all(f"{name}: {value:g} (then {value:g})" in shown for name, value in finite.items())
    assert f"Process 0: {saved['images'][0][0]['file_name']}" in shown


def test_stops_with_the_last_good_weights(tiny_cfg):
    tiny_cfg.DATASETS.TEST, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.MAX_NONFINITE_STEPS = (), 9, 2
    trainer = Trainer(tiny_cfg)
    _spoil(trainer, range(1, 9))
    with pytest.raises(FloatingPointError, match=r"2 steps in a row.*MAX_NONFINITE_STEPS = 2.*loss_mask is nan"):
        trainer.train()
    saved = torch.load(Path(tiny_cfg.OUTPUT_DIR, "model_0000002.pth"), weights_only=False)
    assert saved["iteration"] == 2
    assert all(torch.isfinite(v).all() for v in saved["model"].values() if v.is_floating_point())
    again = Trainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.start_iter == 3
    assert again.scheduler.last_epoch == 3  # as of a training that has done three iterations
