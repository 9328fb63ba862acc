"""Which evaluators a data set gets."""

import os

import numpy as np
import numpy.typing as npt
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..evaluation import PanopticQualityEvaluator
from ..evaluation.instance_ground_truth import instance_dataset
from ..evaluation.sem_seg_evaluator import PanopticSemSegEvaluator
from .model_outputs import model_outputs

__all__ = ["build_evaluator"]

# What can be measured by ``evaluator_type``. The panoptic evaluator is the last one, because detectron2's changes the
# model's outputs.
_MEASURED_OUTPUTS = {
    "coco_panoptic_seg": ("sem_seg", "instances", "panoptic_seg"),
    "coco": ("instances",),
    "sem_seg": ("sem_seg",),
}
_PANOPTIC_EVALUATORS = {
    "PanopticQualityEvaluator": PanopticQualityEvaluator,
    "COCOPanopticEvaluator": COCOPanopticEvaluator,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """mIoU, AP and PQ, as far as a data set's ground truth has them and the model predicts what they measure.

    Args:
        cfg: of the model; ``OUTPUT_DIR`` and ``TEST.PANOPTIC_EVALUATOR`` are read.
        dataset_name: its metadata's ``evaluator_type`` decides: ``coco_panoptic_seg`` gets all three, ``sem_seg``
            mIoU and ``coco`` AP.
        output_folder: default ``OUTPUT_DIR/inference``.

    Raises:
        ValueError: another ``evaluator_type``, an unknown panoptic evaluator, or a model that predicts nothing that the
            data set can measure.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    PathManager.mkdirs(output_folder)
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in _MEASURED_OUTPUTS:
        raise ValueError(
            f"No evaluator for data set {dataset_name!r}: its metadata have evaluator_type {evaluator_type!r}; known "
            f"are {sorted(_MEASURED_OUTPUTS)}."
        )
    predicted = model_outputs(cfg)
    measured = [output for output in _MEASURED_OUTPUTS[evaluator_type] if output in predicted]
    if not measured:
        raise ValueError(
            f"Data set {dataset_name!r} has ground truth for {list(_MEASURED_OUTPUTS[evaluator_type])}, but the model "
            f"predicts {sorted(predicted)} (MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}, "
            "MODEL.PANOPTIC_FPN.OUTPUTS)."
        )
    if len(measured) > 1 and not MetadataCatalog.get(dataset_name).get("thing_classes"):
        measured = [output for output in measured if output != "instances"]  # there is no AP without things
    evaluators = [_EVALUATORS[output](cfg, dataset_name, output_folder) for output in measured]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _sem_seg_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    if hasattr(MetadataCatalog.get(dataset_name), "sem_seg_root"):
        return SemSegEvaluator(dataset_name, output_dir=output_folder, sem_seg_loading_fn=load_sem_seg)
    return PanopticSemSegEvaluator(dataset_name, output_dir=output_folder)


def load_sem_seg(path: str, dtype: type = int) -> npt.NDArray[np.integer]:
    """Labels (H, W) of a semantic PNG; detectron2's own function needs numpy 1."""
    with PathManager.open(path, "rb") as f:
        return np.asarray(Image.open(f)).astype(dtype)


def _instance_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    if getattr(metadata, "json_file", None) is None and hasattr(metadata, "panoptic_json"):
        instances_json = os.path.join(output_folder, f"{dataset_name}_instances.json")
        dataset_name = instance_dataset(dataset_name, instances_json)
    # Said here, because detectron2 leaves out what no prediction has, and a young model may predict nothing.
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    return COCOEvaluator(dataset_name, tasks, output_dir=output_folder)


def _panoptic_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    name = cfg.TEST.get("PANOPTIC_EVALUATOR", "PanopticQualityEvaluator")
    if name not in _PANOPTIC_EVALUATORS:
        raise ValueError(f"TEST.PANOPTIC_EVALUATOR must be one of {sorted(_PANOPTIC_EVALUATORS)}, got {name!r}.")
    return _PANOPTIC_EVALUATORS[name](dataset_name, output_folder)


_EVALUATORS = {
    "sem_seg": _sem_seg_evaluator,
    "instances": _instance_evaluator,
    "panoptic_seg": _panoptic_evaluator,
}
