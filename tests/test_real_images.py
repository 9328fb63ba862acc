"""The whole road on real images: loading, targets, losses, prediction and evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from PIL import Image

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.engine import Trainer, build_evaluator
from panoptic_fpn_ext.engine.checks import fill_in_num_classes
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


@pytest.fixture
def coco_sample(coco_sample_dir: Path, register) -> str:
    paths = ("val2017", "panoptic_val2017", "annotations/panoptic_val2017.json")
    return register("coco_sample", *(coco_sample_dir / path for path in paths))


@pytest.fixture
def coco_polygons(coco_sample_dir: Path, register) -> str:
    paths = ("val2017", "panoptic_val2017", "annotations/panoptic_val2017.json")
    instances = str(coco_sample_dir / "annotations/instances_val2017.json")
    return register("coco_sample_polygons", *(coco_sample_dir / path for path in paths), instances_json=instances)


def _cfg(name: str, output_dir: Path) -> CfgNode:
    cfg = model_zoo.get_config("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), ()  # the tests evaluate by themselves, once
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(output_dir)
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.WARMUP_ITERS = 2, 2, 0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
    fill_in_num_classes(cfg)
    return cfg


class _GroundTruthAsPrediction(torch.nn.Module):
    """Answers with the annotations, in detectron2's output format."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.records = {d["image_id"]: d for d in DatasetCatalog.get(name)}

    def forward(self, inputs: list[dict]) -> list[dict]:
        outputs = []
        for one_input in inputs:
            record = self.records[one_input["image_id"]]
            ids = torch.from_numpy(read_panoptic_png(record["pan_seg_file_name"]))
            segments = [{k: s[k] for k in ("id", "category_id", "isthing")} for s in record["segments_info"]]
            outputs.append({"panoptic_seg": (ids, segments)})
        return outputs


def test_coco_targets(coco_sample):
    categories = PanopticCategories.from_metadata(MetadataCatalog.get(coco_sample))
    assert (categories.num_things, categories.num_stuff) == (80, 53)
    mapper = PanopticDatasetMapper(True, categories=categories, augmentations=[])
    records = DatasetCatalog.get(coco_sample)
    assert len(records) == 13
    assert any(record["file_name"].endswith(".png") for record in records)
    for record in records:
        mapped = mapper(record)
        areas = {s["id"]: s["area"] for s in record["segments_info"]}
        countable = [s["id"] for s in record["segments_info"] if s["isthing"] and not s["iscrowd"]]
        assert [int(m.sum()) for m in mapped["instances"].gt_masks.tensor] == [areas[i] for i in countable]
        assert int((mapped["sem_seg"] != 255).sum()) == sum(areas.values())


def test_coco_ground_truth_has_pq_100(coco_sample, tmp_path):
    cfg = _cfg(coco_sample, tmp_path)
    loader = Trainer.build_test_loader(cfg, coco_sample)
    evaluator = PanopticQualityEvaluator(coco_sample)
    results = inference_on_dataset(_GroundTruthAsPrediction(coco_sample), loader, evaluator)
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["coco_sample", "coco_polygons"])
def test_coco_trains_predicts_and_evaluates(dataset, request, tmp_path):
    name = request.getfixturevalue(dataset)
    cfg = _cfg(name, tmp_path)
    trainer = Trainer(cfg)
    trainer.train()
    results = inference_on_dataset(
        trainer.model, Trainer.build_test_loader(cfg, name), build_evaluator(cfg, name, str(tmp_path / "inference"))
    )
    assert {"panoptic_seg", "sem_seg", "bbox", "segm"} <= set(results)
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100
    record = DatasetCatalog.get(name)[0]
    mapped = PanopticDatasetMapper(cfg, is_train=False)(record)
    with torch.no_grad():
        panoptic_seg, segments = trainer.model.eval()([mapped])[0]["panoptic_seg"]
    assert panoptic_seg.shape == np.asarray(Image.open(record["file_name"])).shape[:2]
    assert set(panoptic_seg.unique().tolist()) - {0} == {s["id"] for s in segments}


@pytest.mark.slow
def test_street_photographs_load_and_train(labelme_facade_dir, register, tmp_path):
    root = labelme_facade_dir
    name = register("facade", root / "images", root / "panoptic_train", root / "panoptic_train.json")
    cfg = _cfg(name, tmp_path)
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (3, 6)
    mapper = PanopticDatasetMapper(cfg, is_train=True)
    for record in DatasetCatalog.get(name)[::10]:
        mapped = mapper(record)
        assert len(mapped["instances"].gt_masks) == len(mapped["instances"])
    trainer = Trainer(cfg)
    trainer.train()
    assert np.isfinite(trainer.storage.history("total_loss").latest())
