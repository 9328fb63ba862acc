"""A training that is interrupted and resumed ends with the weights of one that was not, bit for bit on a CPU."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import built
from small_models import tiny_cfg as small_cfg

from panoptic_fpn_ext.data.train_loader import TrainLoader
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.training.reproducible import IterationSeeds, ReproducibleIterations
from panoptic_fpn_ext.structures import UnreadableFileError


class _Killed(BaseException):
    """As kill -9: nothing gets to do anything any more."""


def _train(cfg: Any, resume: bool = False, kill_at: int | None = None) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights at the end, and the ids of the images of each iteration."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    seen = []
    run_step = trainer.run_step

    def step() -> None:
        if trainer.iter == kill_at:
            raise _Killed
        run_step()

    model = trainer._trainer.model
    model.register_forward_pre_hook(
        lambda module, inputs: (
            seen.append((trainer.iter, [d["image_id"] for d in inputs[0]])) if model.training else None
        )
    )
    trainer.run_step = step
    # What happened before must not matter.
    torch.manual_seed(len(seen) + 17 * resume)
    trainer.train()
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}, seen


def _cfg(tiny_cfg: Any, folder: Path, **options: Any) -> Any:
    cfg = tiny_cfg.clone()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(folder), ()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 6, 2
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    return cfg


OPTIONS = [
    {"SEED": 7, "INPUT.COLOR_AUG_SSD": True},
    {"SEED": -1, "SOLVER.OPTIMIZER": "ADAMW", "DATALOADER.NUM_WORKERS": 1},
    {"SEED": 7, "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD": 0.9},
    {"SEED": -1, "DATALOADER.SAMPLER_TRAIN": "RandomSubsetTrainingSampler", "DATALOADER.RANDOM_SUBSET_RATIO": 0.6},
    {"SEED": 7, "SOLVER.AMP.ENABLED": True, "SOLVER.ACCUMULATE_STEPS": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_killed_between_checkpoints_and_resumed(options, tiny_cfg, tmp_path, monkeypatch):
    first = _cfg(tiny_cfg, tmp_path / "a", **options)
    Trainer(first)  # PyTorch's and detectron2's one-time set-up draws too
    with pytest.raises(_Killed):
        _train(first, kill_at=3)  # the checkpoint of iteration 1 is the last one
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = _cfg(tiny_cfg, tmp_path / "b", **{**options, "DATALOADER.NUM_WORKERS": 0})
    undisturbed, all_seen = _train(_cfg(tiny_cfg, tmp_path / "a", **options), resume=True)
    with pytest.raises(_Killed):
        _train(again, resume=True, kill_at=5)
    resumed, last_seen = _train(again, resume=True)
    assert sorted({iteration for iteration, _ in all_seen}) == [2, 3, 4, 5]
    assert last_seen == [(iteration, ids) for iteration, ids in all_seen if iteration > 3]
    assert all(torch.equal(resumed[key], undisturbed[key]) for key in undisturbed)


def test_what_is_drawn_for_an_image_is_the_same_in_any_process():
    model = built(small_cfg())
    labels = torch.randint(-1, 2, (4, 3000), generator=torch.Generator().manual_seed(0)).to(torch.int8)

    def drawn(rank: int, share: int) -> list[torch.Tensor]:
        seeds.begin(7, 5, rank, share)
        torch.rand(rank)  # nothing else matters
        mine = labels[rank * share : (rank + 1) * share]
        return [model.proposal_generator._subsample_labels(one.clone()) for one in mine]

    seeds = IterationSeeds(model)
    one, two = drawn(0, 4), [*drawn(0, 2), *drawn(1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(drawn(0, 1)[0], drawn(1, 1)[0])
    seeds.remove()
    assert "_subsample_labels" not in vars(model.proposal_generator)


def test_other_training_data_than_before_are_said(caplog):
    def hook(*names: str, batch_size: int = 1) -> ReproducibleIterations:
        dicts = [{"file_name": f"/data/{n}.jpg", "image_id": n, "height": 4, "width": 5} for n in names]
        loader = TrainLoader(dicts, dict, total_batch_size=batch_size, seed=1)
        return ReproducibleIterations(loader, torch.nn.Linear(1, 1))

    caplog.set_level(logging.WARNING)  # an earlier test may have set another
    state = hook("a", "b").state_dict()
    hook("a", "b").load_state_dict(state)
    hook("a", "b").load_state_dict({"seed": 1})  # of an earlier version
    assert not caplog.records
    for other, words in (
        (hook("a", "b", "c"), "there were 2 images, now there are 3"),
        (hook("a", "c"), "there were other images"),
        (hook("a", "b", batch_size=2), "SOLVER.IMS_PER_BATCH was 1 and is 2"),
    ):
        other.load_state_dict(state)
        assert words in caplog.records[-1].getMessage()
    assert len(caplog.records) == 3


def test_an_unreadable_image_in_training_is_replaced_up_to_a_bound(tiny_cfg, tmp_path, caplog, monkeypatch):
    from panoptic_fpn_ext.data import PanopticDatasetMapper

    call = PanopticDatasetMapper.__call__

    def fails_often(self: Any, row: dict[str, Any]) -> Any:
        if row["image_id"] % 2:
            raise UnreadableFileError(f"Image {row['file_name']} cannot be read.")
        return call(self, row)

    monkeypatch.setattr(PanopticDatasetMapper, "__call__", fails_often)
    cfg = _cfg(tiny_cfg, tmp_path / "a", SEED=1)
    _, seen = _train(cfg)
    assert all(image_id % 2 == 0 for _, ids in seen for image_id in ids)
    assert "Another image is taken in its place" in caplog.text
    with pytest.raises(OSError, match=r"MAX_UNREADABLE_IMAGES allows 1"):
        _train(_cfg(tiny_cfg, tmp_path / "b", **{"SEED": 1, "DATALOADER.MAX_UNREADABLE_IMAGES": 1}))
