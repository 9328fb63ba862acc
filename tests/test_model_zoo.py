import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import Trainer

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


def test_config_by_name():
    same = model_zoo.get_config_file(NAME)
    assert model_zoo.get_config_file(f"{NAME}.yaml") == same
    cfg = model_zoo.get_config(NAME)
    assert isinstance(cfg, CfgNode)
    assert cfg.MODEL.META_ARCHITECTURE == "PanopticFPNExt"
    assert model_zoo.get_checkpoint(NAME) == model_zoo.get_config(NAME, trained=True).MODEL.WEIGHTS


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="panoptic_fpn_R_18_narrow"):
        model_zoo.get_config_file("no/such")
    with pytest.raises(KeyError, match="panoptic_fpn_R_18_narrow"):
        model_zoo.get_checkpoint(f"{NAME}_demo")


def test_released_files_are_small_and_whole(tmp_path, monkeypatch):
    for name, entry in model_zoo.published().items():
        path = model_zoo.get_checkpoint(name)
        assert Path(path).stat().st_size <= 12e6
        assert {"file", "metrics", "command", "training", "versions"} <= set(entry)
    shutil.copytree(model_zoo._CHECKPOINTS, tmp_path / "checkpoints")
    with open(tmp_path / "checkpoints" / entry["file"], "ab") as f:
        f.write(b"more")
    monkeypatch.setattr(model_zoo, "_CHECKPOINTS", tmp_path / "checkpoints")
    with pytest.raises(ValueError, match="damaged"):
        model_zoo.get_checkpoint(name)


def test_model_by_name():
    model = model_zoo.get(NAME, trained=True, device="cpu")
    released = torch.load(model_zoo.get_checkpoint(NAME), weights_only=True)["model"]
    state = model.state_dict()
    assert set(released) == set(state)
    assert all(torch.equal(released[key].to(value.dtype), value) for key, value in state.items())


def test_publishing_keeps_the_weights(tmp_path):
    weights = {"kernel": torch.randn(4, 3, 3, 3), "running_var": torch.rand(4) * 1e-6, "steps": torch.tensor(7)}
    torch.save({"model": weights, "optimizer": {"state": torch.zeros(999)}}, tmp_path / "model_final.pth")
    path = model_zoo.publish(str(tmp_path / "model_final.pth"), str(tmp_path / "out"))
    content = torch.load(path, weights_only=True)
    assert "optimizer" not in content
    torch.testing.assert_close(content["model"]["kernel"].float(), weights["kernel"], rtol=1e-3, atol=1e-6)
    assert torch.equal(content["model"]["running_var"], weights["running_var"])
    assert content["model"]["steps"] == 7


@pytest.mark.slow
def test_evaluation_gives_the_recorded_figures(tmp_path, register):
    """Draws the validation pictures, all 100, and evaluates the released checkpoint on them."""
    make_synthetic_street(str(tmp_path / "street"), StreetSettings(num_train=0))
    paths = ("val", "panoptic_val", "annotations/panoptic_val.json")
    name = register("whole_street_val", *(tmp_path / "street" / path for path in paths))
    cfg = model_zoo.get_config(NAME, trained=True)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path / "output")
    cfg.DATASETS.TEST = (name,)
    model = model_zoo.get(NAME, trained=True, device="cpu")
    results = Trainer.test(cfg, model)
    recorded = model_zoo.published()[NAME]["metrics"]
    assert recorded["PQ"] >= 75
    for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        assert results["panoptic_seg"][key] == pytest.approx(recorded[key], abs=0.1), key
