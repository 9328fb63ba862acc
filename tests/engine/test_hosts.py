"""detectron2's own scripts as hosts: the import, and MODEL.META_ARCHITECTURE as the one line that changes."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage
from small_models import built, tiny_batch, tiny_cfg, training_step

from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator


class Host(DefaultTrainer):
    """As detectron2's tools/train_net.py has it, with the mapper and the evaluator of panoptic data."""

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_detection_train_loader(cfg, mapper=PanopticDatasetMapper(cfg, True))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str):
        return PanopticQualityEvaluator(dataset_name)


def test_detectron2s_trainer_and_predictor(request: pytest.FixtureRequest):
    cfg = request.getfixturevalue("tiny_cfg")
    Path(cfg.OUTPUT_DIR).mkdir(parents=True)
    trainer = Host(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert "PQ" in trainer._last_eval_results["panoptic_seg"]
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR, "model_final.pth"))
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    theirs, ours = DefaultPredictor(cfg)(image), PanopticPredictor(cfg)(image)
    torch.testing.assert_close(theirs["sem_seg"], ours["sem_seg"])
    assert torch.equal(theirs["panoptic_seg"][0], ours["panoptic_seg"][0])


def test_a_plain_loop():
    """As detectron2's tools/plain_train_net.py has it."""
    cfg = tiny_cfg()
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with EventStorage(0) as storage:
        for _ in range(2):
            losses = model(tiny_batch())
            storage.put_scalars(**{name: loss.item() for name, loss in losses.items()})
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            scheduler.step()
            storage.step()
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)


def test_copies_pickles_and_channels_last(tmp_path: Path):
    model = built(tiny_cfg())
    expected, _ = training_step(model, tiny_batch())
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), built(tiny_cfg())]
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    DetectionCheckpointer(others[2]).load(str(tmp_path / "model.pth"))
    for other in [*others, copy.deepcopy(model).to(memory_format=torch.channels_last)]:
        found, _ = training_step(other, tiny_batch())
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss, rtol=1e-4, atol=1e-5)
