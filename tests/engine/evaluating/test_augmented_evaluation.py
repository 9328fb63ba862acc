"""``TEST.AUG`` in runs: trained, evaluated, predicted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_input_data import global_state_restored
from config_files import CONFIGS
from detectron2.config import CfgNode

from panoptic_fpn_ext.data import read_image
from panoptic_fpn_ext.engine import PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config
from panoptic_fpn_ext.engine.lazy_training import train_lazily
from panoptic_fpn_ext.engine.settings.options import check_options
from panoptic_fpn_ext.engine.settings.silent_settings import warn_of_settings
from panoptic_fpn_ext.modeling import PanopticFPNWithTTA


@pytest.fixture
def augmented_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """With one view, the plain one, so that figures must be equal."""
    tiny_cfg.merge_from_list(["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", False])
    tiny_cfg.SOLVER.MAX_ITER = 1
    return tiny_cfg


def _assert_equal(results: dict[str, Any], tasks: set[str]) -> None:
    assert set(results) == tasks | {f"{task}_TTA" for task in tasks}
    for task in tasks:
        assert str(results[f"{task}_TTA"]) == str(results[task])  # NaN is NaN


TASKS = {"panoptic_seg", "sem_seg", "bbox", "segm"}


def test_training_ends_with_it_and_a_checkpoint_is_evaluated_with_it(augmented_cfg, tmp_path, caplog):
    trainer = Trainer(augmented_cfg)
    trainer.train()
    _assert_equal(trainer._last_eval_results, TASKS)
    output = Path(augmented_cfg.OUTPUT_DIR)
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert rows[-1]["panoptic_seg_TTA/PQ"] == rows[-1]["panoptic_seg/PQ"]
    assert (output / "inference_TTA" / "panoptic_quality.json").exists()

    augmented_cfg.MODEL.WEIGHTS = str(output / "model_final.pth")
    augmented_cfg.TEST.EXPECTED_RESULTS = [
        ["panoptic_seg_TTA", "PQ", trainer._last_eval_results["panoptic_seg"]["PQ"], 0]
    ]
    check_options(augmented_cfg)
    with caplog.at_level("INFO"):
        results = Trainer.evaluate_checkpoint(augmented_cfg, str(tmp_path / "again"))
    lines = [r.getMessage() for r in caplog.records]
    plain = next(i for i, line in enumerate(lines) if line == "copypaste: Task: panoptic_seg")
    assert plain < next(i for i, line in enumerate(lines) if line.startswith("With the views of TEST.AUG"))
    assert lines.index("copypaste: Task: panoptic_seg_TTA") > plain
    _assert_equal(results, TASKS)
    assert results["panoptic_seg"] == trainer._last_eval_results["panoptic_seg"]
    assert (tmp_path / "again_TTA" / "panoptic_quality.json").exists()


def test_a_mask_rcnn_takes_detectron2s(augmented_cfg):
    augmented_cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    augmented_cfg.merge_from_list(["TEST.AUG.MIN_SIZES", (48, 64), "TEST.AUG.FLIP", True])
    trainer = Trainer(augmented_cfg)
    trainer.train()
    assert set(trainer._last_eval_results) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}


def test_predictor(augmented_cfg, street_datasets):
    Trainer(augmented_cfg).train()
    augmented_cfg.MODEL.WEIGHTS = str(Path(augmented_cfg.OUTPUT_DIR, "model_final.pth"))
    image = np.repeat(np.repeat(read_image(_first_image(street_datasets[1]), "BGR"), 2, axis=0), 2, axis=1)
    outputs = {}
    for name, opts in {"plain": ["ENABLED", False], "same": ["FLIP", False], "flipped": ["FLIP", True]}.items():
        cfg = augmented_cfg.clone()
        cfg.TEST.AUG.merge_from_list(opts)
        predictor = PanopticPredictor(cfg)
        assert isinstance(predictor.model, PanopticFPNWithTTA) == (name != "plain")
        outputs[name] = predictor(image)["sem_seg"]
    assert torch.equal(outputs["plain"], outputs["same"])
    assert outputs["flipped"].shape == outputs["plain"].shape
    assert not torch.allclose(outputs["flipped"], outputs["plain"].log_softmax(dim=0), atol=1e-3)


def _first_image(dataset: str) -> str:
    from detectron2.data import DatasetCatalog

    return str(DatasetCatalog.get(dataset)[0]["file_name"])


def test_sizes_that_are_not_the_models_are_warned_of(augmented_cfg, caplog):
    warn_of_settings(augmented_cfg, augmented_cfg.DATASETS.TEST)
    assert not caplog.records
    augmented_cfg.TEST.AUG.MIN_SIZES = (400, 1200)  # detectron2's
    warn_of_settings(augmented_cfg, augmented_cfg.DATASETS.TEST)
    assert "TEST.AUG.MIN_SIZES are from 400 to 1200 px, and INPUT.MIN_SIZE_TEST is 64" in caplog.text
    assert "Set it to (51, 64, 77)." in caplog.text


def test_lazily(street_datasets, tmp_path):
    train, val = street_datasets
    overrides = [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={val}"]
    overrides += ["dataloader.train.mapper.augmentations.0.short_edge_length=[64]", "train.max_iter=1"]
    overrides += ["dataloader.test.mapper.augmentations.0.short_edge_length=64", "dataloader.train.total_batch_size=2"]
    overrides += ["train.test_aug.enabled=True", "train.test_aug.min_sizes=[64]", "train.test_aug.flip=False"]
    config = str(CONFIGS / "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
    with global_state_restored():
        cfg = load_lazy_config(config, [*overrides, f"train.output_dir={tmp_path}"], [])
        _assert_equal(train_lazily(cfg), TASKS)
        assert (tmp_path / "inference_TTA" / "panoptic_quality.json").exists()
        with pytest.raises(ValueError, match=r"train\.test_aug\.min_sizes is \[\]"):
            load_lazy_config(config, [*overrides, "train.test_aug.min_sizes=[]"], [])
