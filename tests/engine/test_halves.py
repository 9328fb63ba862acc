"""The halves of a panoptic network, and the two of them joined: trained and evaluated for what they predict."""

import math
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import dataset_categories
from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer
from panoptic_fpn_ext.engine.checkpoints.model_categories import CategorySource, model_source, set_model_source
from panoptic_fpn_ext.engine.evaluating.evaluators import build_evaluator
from panoptic_fpn_ext.engine.join_networks import join_networks, main
from panoptic_fpn_ext.modeling import SeparatePanopticNetworks


def _trained(cfg: CfgNode, architecture: str) -> tuple[str, dict]:
    """Path of the checkpoint, and the results."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, architecture))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return str(Path(cfg.OUTPUT_DIR, "model_final.pth")), trainer._last_eval_results


def test_halves_are_trained_apart_and_joined(tiny_cfg: CfgNode, tmp_path: Path):
    instance_weights, instance_results = _trained(tiny_cfg, "GeneralizedRCNN")
    semantic_weights, semantic_results = _trained(tiny_cfg, "SemanticSegmentor")
    assert set(instance_results) == {"bbox", "segm"}
    assert set(semantic_results) == {"sem_seg"}

    tiny_cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"
    model = build_model(tiny_cfg)
    assert isinstance(model, SeparatePanopticNetworks)
    joined = str(tmp_path / "joined.pth")
    join_networks(model, instance_weights, semantic_weights, joined)
    fresh = build_model(tiny_cfg)
    PanopticCheckpointer(fresh, complete=True).load(joined)
    assert model_source(fresh).categories == dataset_categories(tiny_cfg.DATASETS.TRAIN[0])
    results = Trainer.test(tiny_cfg, fresh)
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    assert results["sem_seg"]["mIoU"] == pytest.approx(semantic_results["sem_seg"]["mIoU"], abs=1e-3)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(instance_results[task]["AP"], abs=1e-3, nan_ok=True)
    assert math.isfinite(results["panoptic_seg"]["PQ"])


def test_networks_of_other_categories_are_not_joined(tiny_cfg: CfgNode, tmp_path: Path):
    paths = []
    for name, architecture in (("person", "GeneralizedRCNN"), ("pedestrian", "SemanticSegmentor")):
        half = tiny_cfg.clone()
        half.MODEL.META_ARCHITECTURE = architecture
        model = build_model(half)
        rows = dataset_categories(tiny_cfg.DATASETS.TRAIN[0]).rows
        categories = PanopticCategories([{**row, "name": name} if row["id"] == 1 else row for row in rows])
        set_model_source(model, CategorySource(categories, name))
        PanopticCheckpointer(model, str(tmp_path)).save(name)
        paths.append(str(tmp_path / f"{name}.pth"))
    tiny_cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"
    with pytest.raises(ValueError, match=r"(?s)pedestrian\.pth and checkpoint .*person\.pth differ:.*is 'person'"):
        join_networks(build_model(tiny_cfg), *paths, str(tmp_path / "joined.pth"))
    assert not (tmp_path / "joined.pth").exists()


def test_the_two_together_train_and_resume(tiny_cfg: CfgNode):
    _, results = _trained(tiny_cfg, "SeparatePanopticNetworks")
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    tiny_cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"
    tiny_cfg.OUTPUT_DIR = str(Path(tiny_cfg.OUTPUT_DIR, "SeparatePanopticNetworks"))
    trainer = Trainer(tiny_cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2


def test_weights_that_do_not_fit_leave_no_file(tiny_cfg: CfgNode, tmp_path: Path):
    weights, _ = _trained(tiny_cfg, "GeneralizedRCNN")
    tiny_cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"
    with pytest.raises(ValueError, match="another architecture"):
        join_networks(build_model(tiny_cfg), weights, weights, str(tmp_path / "joined.pth"))
    assert not list(tmp_path.glob("joined*"))


def test_the_command_wants_a_config_of_two_networks(tiny_cfg: CfgNode, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(tiny_cfg.dump())
    arguments = ["--config-file", tmp_path / "config.yaml", "--output", tmp_path / "joined.pth"]
    with pytest.raises(ValueError, match="must be SeparatePanopticNetworks"):
        main([str(a) for a in [*arguments, "--instance-weights", "a.pth", "--semantic-weights", "b.pth"]])


def test_weights_of_one_backbone_start_both(tiny_cfg: CfgNode, tmp_path: Path):
    """As ImageNet weights do, whose names are found by their ends."""
    source = build_model(tiny_cfg).backbone.bottom_up.state_dict()
    torch.save({"model": source, "matching_heuristics": True, "__author__": "test"}, tmp_path / "backbone.pth")
    tiny_cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"
    model = build_model(tiny_cfg)
    PanopticCheckpointer(model).load(str(tmp_path / "backbone.pth"))
    for backbone in (model.backbone, model.semantic_backbone):
        for name, value in backbone.bottom_up.state_dict().items():
            assert torch.equal(value, source[name]), name


def test_a_half_is_only_asked_for_what_it_has(tiny_cfg: CfgNode):
    """Head sizes are checked, and evaluators chosen, by what a model predicts."""
    tiny_cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    Trainer(tiny_cfg)
    tiny_cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(ValueError, match=r"ROI_HEADS\.NUM_CLASSES is 80: set it to 4"):
        Trainer(tiny_cfg)
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES, tiny_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4, 54
    Trainer(tiny_cfg)
    tiny_cfg.MODEL.META_ARCHITECTURE = "PanopticFPNExt"
    tiny_cfg.MODEL.PANOPTIC_FPN.OUTPUTS = ["panoptic_seg"]
    name = type(build_evaluator(tiny_cfg, tiny_cfg.DATASETS.TEST[0])).__name__
    assert name == "PanopticQualityEvaluator"
