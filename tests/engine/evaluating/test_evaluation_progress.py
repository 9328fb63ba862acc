"""An evaluation goes on where it was killed, with the same bits, and one unreadable image does not end it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input_data import truncate
from detectron2.evaluation import DatasetEvaluator
from torch.utils.data import DataLoader

from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.evaluating import evaluation_progress as module
from panoptic_fpn_ext.structures import UnreadableFileError


class _Killed(BaseException):
    """As kill -9."""


def _evaluate(cfg: Any, folder: Path, model: torch.nn.Module, kill_after: int | None = None) -> tuple[Any, int]:
    """Results, and how many images the model saw."""
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        if seen == kill_after:
            raise _Killed
        seen += 1

    handle = model.register_forward_pre_hook(count)
    try:
        evaluators = [Trainer.build_evaluator(cfg, name, str(folder)) for name in cfg.DATASETS.TEST]
        return Trainer.test(cfg, model, evaluators, progress_folder=str(folder / "progress")), seen
    finally:
        handle.remove()


def _text(results: Any) -> str:
    return json.dumps(results, sort_keys=True)


@pytest.fixture
def model(tiny_cfg: Any) -> torch.nn.Module:
    tiny_cfg.DATASETS.TEST = tiny_cfg.DATASETS.TRAIN  # 8 images
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    return Trainer.build_model(tiny_cfg).eval()


def test_goes_on_with_the_same_bits(tiny_cfg, model, tmp_path, monkeypatch):
    for name in ("SAVE_EVERY_S", "_REST"):
        monkeypatch.setattr(module, name, 0)  # after each image, however slow the disk is
    expected, all_images = _evaluate(tiny_cfg, tmp_path / "a", model)
    for kill_after in (3, 2):
        with pytest.raises(_Killed):
            _evaluate(tiny_cfg, tmp_path / "b", model, kill_after)
    found, rest = _evaluate(tiny_cfg, tmp_path / "b", model)
    assert (all_images, rest) == (8, 3)
    assert _text(found) == _text(expected)
    for name in ("panoptic_quality.json", "predictions.json", "sem_seg_confusion.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert {p.name for p in (tmp_path / "b/predictions").iterdir()} == {
        p.name for p in (tmp_path / "a/predictions").iterdir()
    }
    assert not (tmp_path / "b/progress").exists() and not list((tmp_path / "b").glob("*.jsonl"))


def test_other_data_begin_anew(tiny_cfg, model, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(module, "_REST", 0)
    expected, _ = _evaluate(tiny_cfg, tmp_path / "a", model)
    with pytest.raises(_Killed):
        _evaluate(tiny_cfg, tmp_path / "b", model, 3)
    monkeypatch.setattr(module, "file_hash", lambda _: "of another JSON")
    found, seen = _evaluate(tiny_cfg, tmp_path / "b", model)
    assert (seen, _text(found)) == (8, _text(expected))
    assert "begins anew" in caplog.text


def test_what_was_mended_in_the_ground_truth_counts(tiny_cfg, model, small_street, tmp_path):
    tiny_cfg.MODEL.PANOPTIC_FPN.OUTPUTS = ["panoptic_seg"]  # else the evaluator of AP finds it before
    path = sorted((small_street / "panoptic_train").iterdir())[2]
    original = path.read_bytes()
    try:
        truncate(path, 0.3)
        with pytest.raises(ValueError, match="found 1 problem"):
            _evaluate(tiny_cfg, tmp_path / "a", model)
    finally:
        path.write_bytes(original)
    found, seen = _evaluate(tiny_cfg, tmp_path / "a", model)
    assert (seen, _text(found)) == (8, _text(_evaluate(tiny_cfg, tmp_path / "b", model)[0]))


@pytest.mark.parametrize("how", [{"sampler": [0, 3]}, {"batch_sampler": [[0, 3], [1]]}])
def test_another_sampler_stays(tiny_cfg, model, how):
    """Only that of `build_detection_test_loader` is made anew, for what is left."""
    seen: list[str] = []

    class Names(DatasetEvaluator):
        def process(self, inputs: Any, outputs: Any) -> None:
            seen.extend(one["image_id"] for one in inputs)

    dataset = Trainer.build_test_loader(tiny_cfg, tiny_cfg.DATASETS.TEST[0]).dataset
    loader = DataLoader(dataset, collate_fn=lambda batch: batch, **how)
    module.evaluate_dataset(model, loader, Names())
    wanted = how.get("sampler", [0, 3, 1])
    assert seen == [dataset[i]["image_id"] for i in wanted]


def test_unreadable_images_are_one_error_at_the_end(tiny_cfg, model, small_street, tmp_path):
    images = sorted((small_street / "train").iterdir())
    originals = {path: path.read_bytes() for path in (images[1], images[5])}
    try:
        for path in originals:
            truncate(path, 0.3)
        with pytest.raises(UnreadableFileError, match="2 images could not be read") as caught:
            _evaluate(tiny_cfg, tmp_path / "a", model)
    finally:
        for path, data in originals.items():
            path.write_bytes(data)
    assert all(str(path) in str(caught.value) for path in originals)
    found, seen = _evaluate(tiny_cfg, tmp_path / "a", model)
    assert seen == 2
    shutil.rmtree(tmp_path / "a")
    assert _text(found) == _text(_evaluate(tiny_cfg, tmp_path / "a", model)[0])
