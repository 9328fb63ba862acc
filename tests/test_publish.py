"""Publishing: a small network is trained, released, evaluated and entered into a table."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog

from panoptic_fpn_ext import model_zoo, zoo_files
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer
from panoptic_fpn_ext.engine.evaluating.evaluators import telling_outputs
from panoptic_fpn_ext.model_zoo import __main__ as command
from panoptic_fpn_ext.model_zoo import published
from panoptic_fpn_ext.model_zoo.metrics import metrics_of_results
from panoptic_fpn_ext.model_zoo.publish import publish, release_weights

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo"
OTHER = "Mine-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo"
WORDS = {"command": "train_net.py", "training": "two iterations"}

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def trained(tiny_cfg, tmp_path, monkeypatch):
    """A config of the zoo, of a network that was trained for two iterations; OUTPUT_DIR has checkpoint and metrics."""
    configs = tmp_path / "configs"
    monkeypatch.setattr(zoo_files, "config_root", lambda: configs)
    for name in (NAME, OTHER):
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / f"{name}.yaml").write_text(tiny_cfg.dump(), encoding="utf-8")
    Trainer(tiny_cfg).train()
    return tiny_cfg


@pytest.fixture
def zoo(tmp_path) -> Path:
    return tmp_path / "zoo"


def checkpoint_of(cfg) -> str:
    return str(Path(cfg.OUTPUT_DIR, "model_final.pth"))


def test_release_keeps_the_weights(tmp_path):
    weights = {"kernel": torch.randn(4, 3, 3, 3), "running_var": torch.rand(4) * 1e-6, "steps": torch.tensor(7)}
    torch.save({"model": weights, "optimizer": {"state": torch.zeros(999)}}, tmp_path / "model_final.pth")
    path = release_weights(str(tmp_path / "model_final.pth"), str(tmp_path / "out"))
    content = torch.load(path, weights_only=True)
    assert set(content) == {"model", "__author__", "matching_heuristics"}
    assert content["model"]["kernel"].dtype == torch.float16
    torch.testing.assert_close(content["model"]["kernel"].float(), weights["kernel"], rtol=1e-3, atol=1e-6)
    assert torch.equal(content["model"]["running_var"], weights["running_var"])
    assert content["model"]["steps"] == 7


def test_publishes_what_it_evaluated(trained, zoo, capsys):
    arguments = [NAME, checkpoint_of(trained), "--output-dir", str(zoo), "--command", "a", "--training", "b"]
    command.main(["publish", *arguments])
    row = capsys.readouterr().out.splitlines()[-1]
    assert "(learnt)" not in row
    ((name, entry),) = published(zoo).items()
    assert (name, entry["dataset"], entry["command"], entry["training"]) == (NAME, trained.DATASETS.TEST[0], "a", "b")
    assert set(entry["versions"]) == {"panoptic_fpn_ext", "detectron2", "torch"}
    assert entry["recipe"]["SOLVER.MAX_ITER"] == str(trained.SOLVER.MAX_ITER)
    assert not [key for key in entry["recipe"] if key.startswith(("OUTPUT_DIR", "TEST."))]
    path = zoo / entry["file"]
    assert sorted(zoo.iterdir()) == sorted([path, zoo / "model_zoo.json"])
    assert path.stem == f"panoptic_fpn_R_18_narrow_demo_{hashlib.sha256(path.read_bytes()).hexdigest()[:6]}"
    record = torch.load(path, weights_only=True)["panoptic_categories"]
    assert [row["name"] for row in record["categories"]][:2] == ["person", "car"]
    model = Trainer.build_model(trained)
    PanopticCheckpointer(model, complete=True).load(str(path))
    results = Trainer.test(trained, model)
    assert entry["metrics"] == metrics_of_results(results, frozenset(["panoptic_seg", "instances", "sem_seg"]))
    assert row.startswith(f"| `{NAME}` | `{entry['dataset']}` | {entry['metrics']['PQ']:.1f} | ")


def test_figures_on_learnt_images_are_marked(trained, zoo, monkeypatch, capsys):
    trained.DATASETS.TRAIN += trained.DATASETS.TEST
    (zoo_files.config_root() / f"{NAME}.yaml").write_text(trained.dump(), encoding="utf-8")
    Trainer(trained).train()
    row = _publish(trained, zoo, results_file=str(Path(trained.OUTPUT_DIR, "metrics.json")))
    assert f"| `{trained.DATASETS.TEST[0]}` (learnt) |" in row
    monkeypatch.setattr(zoo_files, "CHECKPOINTS", zoo)
    command.main([])
    assert f"| `{trained.DATASETS.TEST[0]}` (learnt) |" in capsys.readouterr().out


def test_takes_the_metrics_of_the_training(trained, zoo):
    """And puts the next release of a config in the place of the former."""
    metrics, files = Path(trained.OUTPUT_DIR, "metrics.json"), []
    for trained.SOLVER.MAX_ITER in (2, 3):
        Trainer(trained).train()
        _publish(trained, zoo, results_file=str(metrics))
        entry = published(zoo)[NAME]
        last = json.loads(metrics.read_text().splitlines()[-1])
        assert entry["metrics"]["mIoU"] == pytest.approx(last["sem_seg/mIoU"], abs=1e-4)
        files.append(entry["file"])
    assert files[0] != files[1]
    assert sorted(path.name for path in zoo.iterdir()) == ["model_zoo.json", files[1]]


def _publish(cfg, zoo, name=NAME, **kwargs):
    return publish(name, checkpoint_of(cfg), **{**WORDS, "output_dir": str(zoo), **kwargs})


def test_refusals_leave_nothing_behind(trained, zoo, tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"sem_seg": {"mIoU": 50.0}, "panoptic_seg": {"PQ": 40.0, "SQ": 80.0}}))
    with pytest.raises(ValueError, match="'RQ', 'box AP', 'mask AP'"):
        _publish(trained, zoo, results_file=str(results))
    results.write_text("PQ 40")
    with pytest.raises(ValueError, match="no JSON"):
        _publish(trained, zoo, results_file=str(results))
    results.write_text(json.dumps({"iteration": 1, "total_loss": 1.0}))
    with pytest.raises(ValueError, match="no evaluation"):
        _publish(trained, zoo, results_file=str(results))
    results.write_text(json.dumps({"iteration": 7, "panoptic_seg/PQ": 1.0}))
    with pytest.raises(ValueError, match=r"iteration 7, the checkpoint .* of 1"):
        _publish(trained, zoo, results_file=str(results))
    results.write_text(json.dumps({"panoptic_seg": 3}))
    with pytest.raises(ValueError, match="no results of detectron2"):
        _publish(trained, zoo, results_file=str(results))
    with pytest.raises(ValueError, match=r"row is of the config as it stands: write MODEL\.FPN\.OUT_CHANNELS into"):
        _publish(trained, zoo, opts=["MODEL.FPN.OUT_CHANNELS", 64])
    with pytest.raises(ValueError, match=r"is of small_street_val, .* is small_street_train"):
        metrics = str(Path(trained.OUTPUT_DIR, "metrics.json"))
        _publish(trained, zoo, results_file=metrics, opts=["DATASETS.TEST", trained.DATASETS.TRAIN])
    _rewrite(trained, ["MODEL.FPN.OUT_CHANNELS", 64])
    with pytest.raises(ValueError, match="another architecture"):
        _publish(trained, zoo)
    _rewrite(trained, ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"])
    with pytest.raises(ValueError, match=r"lacks: \['sem_seg_head"):
        _publish(trained, zoo)
    (zoo_files.config_root() / f"{NAME}.py").touch()
    with pytest.raises(ValueError, match="YAML twin"):
        _publish(trained, zoo, f"{NAME}.py")
    with pytest.raises(KeyError, match="There is no config"):
        publish("no/such", checkpoint_of(trained), **WORDS)
    assert not zoo.exists() or not list(zoo.iterdir())


def _rewrite(cfg, opts):
    changed = cfg.clone()
    changed.merge_from_list(opts)
    (zoo_files.config_root() / f"{NAME}.yaml").write_text(changed.dump(), encoding="utf-8")


def test_weights_of_two_configs_outlive_one_of_them(trained, zoo, monkeypatch):
    for name in (NAME, OTHER):
        _publish(trained, zoo, name)
    first = published(zoo)[OTHER]["file"]
    assert published(zoo)[NAME]["file"] == first
    trained.SOLVER.MAX_ITER = 3
    Trainer(trained).train()
    _publish(trained, zoo)
    assert published(zoo)[NAME]["file"] != first
    monkeypatch.setattr(zoo_files, "CHECKPOINTS", zoo)
    assert zoo_files.get_checkpoint(OTHER) == str(zoo / first)
    (zoo / first).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{first}, the weights of {OTHER}, is missing"):
        zoo_files.get_checkpoint(OTHER)


def test_a_published_config_takes_its_classes_from_the_weights(trained, zoo, monkeypatch):
    _rewrite(trained, ["MODEL.ROI_HEADS.NUM_CLASSES", 0, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 0])
    _publish(trained, zoo, results_file=str(Path(trained.OUTPUT_DIR, "metrics.json")))
    monkeypatch.setattr(zoo_files, "CHECKPOINTS", zoo)
    weights = model_zoo.get(NAME, trained=True).roi_heads.box_predictor.cls_score.weight
    assert len(weights) == trained.MODEL.ROI_HEADS.NUM_CLASSES + 1
    for name in (*trained.DATASETS.TRAIN, *trained.DATASETS.TEST):
        MetadataCatalog.remove(name)
    with pytest.raises(KeyError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES .* is 0, to be taken from"):
        model_zoo.get(NAME)


def test_needed_metrics_are_those_of_the_outputs():
    results = {"bbox": {"AP": 30.0}, "segm": {"AP": 28.123456}, "sem_seg": {"mIoU": float("nan")}}
    assert metrics_of_results(results, frozenset(["instances"])) == {"box AP": 30.0, "mask AP": 28.1235}
    with pytest.raises(ValueError, match=r"No numbers for \['mIoU'\]"):
        metrics_of_results(results, frozenset(["sem_seg"]))


def test_what_says_nothing_need_not_be_measured():
    every, stuff = frozenset(["panoptic_seg", "instances", "sem_seg"]), {"id": 2, "name": "b", "isthing": 0}
    thing = {"id": 1, "name": "a", "isthing": 1}
    assert telling_outputs(every, PanopticCategories([thing, stuff])) == every
    assert telling_outputs(every, PanopticCategories([thing])) == {"panoptic_seg", "instances"}
    assert telling_outputs(every, PanopticCategories([stuff, {**stuff, "id": 3, "name": "c"}])) == {
        "panoptic_seg",
        "sem_seg",
    }


def test_command_says_what_is_wrong():
    with pytest.raises(FileNotFoundError, match=r"no_such\.pth"):
        command.main(["publish", NAME, "no_such.pth", "--command", "", "--training", ""])
