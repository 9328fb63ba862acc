"""From a config of the Cityscapes recipes and a tree as downloaded to PQ, AP and mIoU, with no other code."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from places import REPOSITORY

from panoptic_fpn_ext.engine import Trainer, build_evaluator
from panoptic_fpn_ext.engine.setup import load_config, load_prediction_config
from panoptic_fpn_ext.evaluation.cityscapes import CityscapesInstanceEvaluator

CONFIGS = REPOSITORY / "configs" / "Cityscapes-PanopticSegmentation"
# The smallest network worth the name, and a sixteenth of the recipe's sizes.
SMALL = [
    "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_narrow_resnet_fpn_backbone",
    "MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STEM_OUT_CHANNELS", "32",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "32", "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50",
    "INPUT.MIN_SIZE_TRAIN", "(32, 128)", "INPUT.CROP.SIZE", "[32, 64]", "INPUT.MIN_SIZE_TEST", "64",
    "INPUT.COLOR_AUG_SSD", "True", "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", "0.75",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", "2",
    "DATALOADER.NUM_WORKERS", "0", "SEED", "1",
]  # fmt: skip


@pytest.fixture
def datasets(small_cityscapes, no_cityscapes, monkeypatch):
    """``$DETECTRON2_DATASETS`` with Cityscapes in it."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(small_cityscapes.parent))


def _config(name: str, output: Path, *options: str) -> CfgNode:
    return load_config(str(CONFIGS / f"{name}.yaml"), [*SMALL, "OUTPUT_DIR", str(output), *options], [])


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("panoptic_fpn_R_50", {"panoptic_seg", "segm", "sem_seg"}),
        ("semantic_fpn_R_50", {"sem_seg"}),
        ("mask_rcnn_R_50_FPN", {"segm"}),
        ("separate_R_50_FPN_x2", {"panoptic_seg", "segm", "sem_seg"}),
    ],
)
def test_trains_and_evaluates(datasets, tmp_path, name, measured):
    trainer = Trainer(_config(name, tmp_path))
    trainer.train()
    assert np.isfinite(trainer.storage.history("total_loss").latest())
    results = trainer._last_eval_results
    assert set(results) == measured
    if "segm" in measured:
        assert {"AP", "AP50", "AP-car"} <= set(results["segm"])
    if "sem_seg" in measured:
        assert 0 <= results["sem_seg"]["mIoU"] <= 100


def test_evaluators_follow_the_official_rules(datasets, tmp_path):
    cfg = _config("panoptic_fpn_R_50", tmp_path)
    evaluators = build_evaluator(cfg, cfg.DATASETS.TEST[0], str(tmp_path))
    assert isinstance(evaluators, DatasetEvaluators)
    semantic, instances, _ = evaluators._evaluators
    assert semantic._count_absent_classes
    assert isinstance(instances, CityscapesInstanceEvaluator)


def test_predicting_needs_no_data(no_cityscapes, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg = load_prediction_config(str(CONFIGS / "panoptic_fpn_R_50.yaml"), ["MODEL.DEVICE", "cpu"], [])
    assert MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes[2] == "car"


def test_a_missing_download_is_said(no_cityscapes, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"gtFine/train/CITY/.*gtFine_trainvaltest\.zip"):
        _config("panoptic_fpn_R_50", tmp_path)


def test_datasets_registered_before_stay(small_cityscapes, cityscapes_datasets, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    cfg = _config("panoptic_fpn_R_50", tmp_path)
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).gt_dir == str(small_cityscapes / "gtFine" / "train")


@pytest.mark.parametrize("option", ["MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"])
def test_head_sizes_are_checked_and_filled_in(datasets, tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} is 80: set it to"):
        _config("panoptic_fpn_R_50", tmp_path, option, "80")
    cfg = _config("panoptic_fpn_R_50", tmp_path, option, "0")
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (8, 19)
