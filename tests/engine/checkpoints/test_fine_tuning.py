"""Fine-tuning: what a checkpoint gives to a model with other categories, and what is said of it."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.engine import PanopticCheckpointer
from panoptic_fpn_ext.engine.checkpoints.model_categories import CategorySource, set_model_source

# As many things and stuff as the synthetic street has, which the config of the tests fits.
THINGS = {1: "person", 3: "car", 6: "bus", 13: "traffic sign"}
STUFF = {149: "road", 184: "vegetation", 185: "fence", 187: "sky", 191: "sidewalk", 193: "terrain", 197: "building"}
PREDICTORS = {
    "box classifier": "roi_heads.box_predictor.cls_score.weight",
    "box regression": "roi_heads.box_predictor.bbox_pred.weight",
    "mask predictor": "roi_heads.mask_head.predictor.weight",
    "semantic predictor": "sem_seg_head.predictor.weight",
}


def _source(things: dict[int, str] = THINGS, stuff: dict[int, str] = STUFF) -> CategorySource:
    rows = [{"id": i, "name": n, "isthing": k} for kind, k in ((things, 1), (stuff, 0)) for i, n in kind.items()]
    return CategorySource(PanopticCategories(rows), "dataset 'new'")


@pytest.fixture
def checkpoint(tiny_cfg: CfgNode, tmp_path: Path) -> str:
    model = build_model(tiny_cfg)
    set_model_source(model, _source())
    PanopticCheckpointer(model, str(tmp_path)).save("weights")
    return str(tmp_path / "weights.pth")


def _fine_tune(
    cfg: CfgNode, checkpoint: str, source: "CategorySource | None", caplog: pytest.LogCaptureFixture
) -> tuple[set[str], str]:
    """Which predictors were reused, and what was said."""
    model = build_model(cfg)
    set_model_source(model, source)
    with caplog.at_level(logging.INFO, logger="panoptic_fpn_ext"):
        PanopticCheckpointer(model).load(checkpoint)
    saved, loaded = torch.load(checkpoint, weights_only=True)["model"], model.state_dict()
    assert torch.equal(saved["backbone.bottom_up.stem.conv1.weight"], loaded["backbone.bottom_up.stem.conv1.weight"])
    (line,) = (r.getMessage() for r in caplog.records if r.getMessage().startswith("Weights reused from "))
    assert "\n" not in line
    same = {
        name: saved[key].shape == loaded[key].shape and torch.equal(saved[key], loaded[key])
        for name, key in PREDICTORS.items()
    }
    return {name for name, is_same in same.items() if is_same}, line


def test_predictors_of_other_things_start_afresh(tiny_cfg, checkpoint, caplog):
    """As many as before, so that their shapes fit."""
    others = dict(zip(THINGS, ("car", "shop", "window", "door"), strict=True))
    reused, line = _fine_tune(tiny_cfg, checkpoint, _source(others), caplog)
    assert reused == {"semantic predictor"}
    assert line.startswith(f"Weights reused from {checkpoint}: backbone, pyramid, RPN, box head, mask head, ")
    assert (
        "Started afresh: box classifier, box regression, mask predictor "
        "(things there: person, car, bus, traffic sign; here: car, shop, window, door)."
    ) in line


def test_the_semantic_predictor_of_other_stuff_starts_afresh(tiny_cfg, checkpoint, caplog):
    reused, line = _fine_tune(tiny_cfg, checkpoint, _source(stuff={**STUFF, 149: "street"}), caplog)
    assert reused == set(PREDICTORS) - {"semantic predictor"}
    assert "semantic predictor (semantic classes there: things, road, vegetation" in line


def test_the_same_categories_are_reused_whatever_their_ids(tiny_cfg, checkpoint, caplog):
    renumbered = {10 * id_: name for id_, name in THINGS.items()}
    reused, line = _fine_tune(tiny_cfg, checkpoint, _source(renumbered), caplog)
    assert reused == set(PREDICTORS)
    assert "fresh" not in line


def test_the_same_names_in_another_order_of_ids_are_not_the_same(tiny_cfg, checkpoint, caplog):
    reused, _ = _fine_tune(tiny_cfg, checkpoint, _source({**THINGS, 1: "car", 3: "person"}), caplog)
    assert reused == {"semantic predictor"}


def test_one_thing_more(tiny_cfg, checkpoint, caplog):
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    reused, line = _fine_tune(tiny_cfg, checkpoint, _source({**THINGS, 14: "tram"}), caplog)
    assert reused == {"semantic predictor"}
    assert "here: person, car, bus, traffic sign, tram)" in line


def test_class_agnostic_boxes_and_masks_are_reused(tiny_cfg, tmp_path, caplog):
    tiny_cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = tiny_cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = True
    model = build_model(tiny_cfg)
    set_model_source(model, _source())
    PanopticCheckpointer(model, str(tmp_path)).save("agnostic")
    others = dict(zip(THINGS, ("car", "shop", "window", "door"), strict=True))
    reused, _ = _fine_tune(tiny_cfg, str(tmp_path / "agnostic.pth"), _source(others), caplog)
    assert reused == set(PREDICTORS) - {"box classifier"}


def test_without_categories_shapes_decide_and_it_is_said(tiny_cfg, checkpoint, tmp_path, caplog):
    content = torch.load(checkpoint, weights_only=True)
    del content["panoptic_categories"]
    torch.save(content, tmp_path / "old.pth")
    tiny_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    reused, line = _fine_tune(tiny_cfg, str(tmp_path / "old.pth"), _source(), caplog)
    assert reused == set(PREDICTORS) - {"semantic predictor"}
    assert "semantic predictor (of another shape in the file)" in line
    assert line.endswith("The file records no categories, so that shapes alone decided about the predictors.")


def test_a_backbone_alone(tiny_cfg, tmp_path, caplog):
    model = build_model(tiny_cfg)
    torch.save({"model": model.backbone.bottom_up.state_dict(), "matching_heuristics": True}, tmp_path / "imagenet.pth")
    other = build_model(tiny_cfg)
    with caplog.at_level(logging.INFO, logger="panoptic_fpn_ext"):
        PanopticCheckpointer(other).load(str(tmp_path / "imagenet.pth"))
    (line,) = (r.getMessage() for r in caplog.records if r.getMessage().startswith("Weights reused from "))
    assert ": backbone. Started afresh: pyramid, RPN, " in line and line.endswith("(not in the file).")


def test_a_spoilt_record_is_named(tiny_cfg, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["panoptic_categories"] = {"categories": [{"id": 1}]}
    torch.save(content, tmp_path / "spoilt.pth")
    with pytest.raises(ValueError, match=r"spoilt\.pth: what it has under 'panoptic_categories' are no categories"):
        PanopticCheckpointer(build_model(tiny_cfg), complete=True).load(str(tmp_path / "spoilt.pth"))
