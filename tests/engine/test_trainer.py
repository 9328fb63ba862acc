"""Real, small networks trained and evaluated on real files, through detectron2's own loaders and trainer."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer
from panoptic_fpn_ext.engine.data_descriptions import register_used_datasets
from panoptic_fpn_ext.engine.processes.launch import launch_from_arguments

LOSSES = ["loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"]


def _train(cfg: CfgNode, resume: bool = False) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def _metrics(cfg: CfgNode) -> list[dict]:
    return [json.loads(line) for line in Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]


def test_trains_and_evaluates(tiny_cfg):
    tiny_cfg.TEST.EVAL_PERIOD = 2
    trainer = _train(tiny_cfg)
    assert all(name in trainer.storage.histories() for name in [*LOSSES, "total_loss"])
    assert Path(tiny_cfg.OUTPUT_DIR, "model_final.pth").is_file()
    results = trainer._last_eval_results
    assert {"PQ", "SQ", "RQ", "PQ_th", "PQ_st"} <= set(results["panoptic_seg"])
    assert {"mIoU", "fwIoU", "mACC", "pACC", "IoU-road"} <= set(results["sem_seg"])
    assert "AP" in results["bbox"] and "AP" in results["segm"]


def test_learns(tiny_cfg):
    """Forty iterations on four images halve the losses that a constant cannot lower."""
    tiny_cfg.SOLVER.MAX_ITER = 40
    trainer = _train(tiny_cfg)
    semantic = [value for value, _ in trainer.storage.history("loss_sem_seg").values()]
    assert sum(semantic[-5:]) < 0.5 * sum(semantic[:5])


def test_resumes_where_it_stopped(tiny_cfg):
    _train(tiny_cfg)
    tiny_cfg.SOLVER.MAX_ITER = 3
    trainer = Trainer(tiny_cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2


def test_evaluation_of_a_checkpoint_gives_the_same_figures_again(tiny_cfg):
    tiny_cfg.SOLVER.MAX_ITER = 20
    expected = Trainer.test(tiny_cfg, _train(tiny_cfg).model)
    model = Trainer.build_model(tiny_cfg)
    PanopticCheckpointer(model, complete=True).load(str(Path(tiny_cfg.OUTPUT_DIR, "model_final.pth")))
    found = Trainer.test(tiny_cfg, model)
    assert found["panoptic_seg"] == expected["panoptic_seg"]


def test_expected_results(tiny_cfg, tmp_path, caplog):
    tiny_cfg.SOLVER.MAX_ITER = 1
    tiny_cfg.TEST.EXPECTED_RESULTS = [["panoptic_seg", "PQ", 50.0, 50.0]]
    assert set(Trainer(tiny_cfg).train()) == {"panoptic_seg", "sem_seg", "bbox", "segm"}
    tiny_cfg.TEST.EXPECTED_RESULTS = [["panoptic_seg", "PQ", 200.0, 1.0]]
    with pytest.raises(SystemExit) as end:
        Trainer(tiny_cfg).train()
    assert end.value.code == 1
    tiny_cfg.MODEL.WEIGHTS = str(Path(tiny_cfg.OUTPUT_DIR, "model_final.pth"))
    tiny_cfg.TEST.EXPECTED_RESULTS = [["panoptic_seg", "PQ", 50.0, 50.0], ["keypoints", "AP", 50.0, 50.0]]
    with pytest.raises(SystemExit) as end:
        Trainer.evaluate_checkpoint(tiny_cfg, str(tmp_path / "again"))
    assert end.value.code == 1
    assert "TEST.EXPECTED_RESULTS has keypoints, which was not measured" in caplog.text


def test_both_panoptic_evaluators_agree(tiny_cfg):
    cfg = model_zoo.get_config("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow", trained=True)
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE = tiny_cfg.DATASETS.TEST, tiny_cfg.OUTPUT_DIR, "cpu"
    model = model_zoo.get("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow", trained=True, device="cpu")
    results = {}
    for name in ("PanopticQualityEvaluator", "COCOPanopticEvaluator"):
        cfg.TEST.PANOPTIC_EVALUATOR = name
        results[name] = Trainer.test(cfg, model)["panoptic_seg"]
    ours, theirs = results.values()
    assert theirs["PQ"] > 0
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key
    cfg.TEST.PANOPTIC_EVALUATOR = "another"
    with pytest.raises(ValueError, match=r"TEST\.PANOPTIC_EVALUATOR"):
        Trainer.test(cfg, model)


def test_checkpoints_go_both_ways(tiny_cfg, tmp_path):
    """What the built-in model saved, ours loads, and the other way round, with nothing missing and nothing left."""
    models = {}
    for name in ("PanopticFPN", "PanopticFPNExt"):
        tiny_cfg.MODEL.META_ARCHITECTURE = name
        models[name] = Trainer.build_model(tiny_cfg)
        DetectionCheckpointer(models[name], str(tmp_path)).save(name)
    for source, target in (("PanopticFPN", "PanopticFPNExt"), ("PanopticFPNExt", "PanopticFPN")):
        PanopticCheckpointer(models[target], complete=True).load(str(tmp_path / f"{source}.pth"))
        saved = torch.load(tmp_path / f"{source}.pth", weights_only=False)["model"]
        loaded = models[target].state_dict()
        assert set(saved) == set(loaded)
        assert all(torch.equal(torch.as_tensor(saved[key]), loaded[key]) for key in saved)


def _train_in_a_process(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cfg = args.cfg
    register_used_datasets((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), args.registrations)
    trainer = Trainer(cfg)
    trainer.train()
    results = Trainer.test(cfg, trainer.model)
    if results:
        Path(cfg.OUTPUT_DIR, "results.json").write_text(json.dumps(results["panoptic_seg"]))


@pytest.mark.slow
def test_several_processes_without_a_gpu(tiny_cfg, small_street):
    tiny_cfg.TEST.PANOPTIC_EVALUATOR = "PanopticQualityEvaluator"
    registrations = [
        [
            f"small_street_{split}",
            str(small_street / split),
            str(small_street / f"panoptic_{split}"),
            str(small_street / "annotations" / f"panoptic_{split}.json"),
        ]
        for split in ("train", "val")
    ]
    Path(tiny_cfg.OUTPUT_DIR).mkdir()
    job = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    launch_from_arguments(_train_in_a_process, argparse.Namespace(cfg=tiny_cfg, registrations=registrations, **job))
    results = json.loads(Path(tiny_cfg.OUTPUT_DIR, "results.json").read_text())
    assert 0 <= results["PQ"] <= 100
    weights = torch.load(Path(tiny_cfg.OUTPUT_DIR, "model_final.pth"), weights_only=False)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())
