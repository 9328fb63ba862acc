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

__all__ = ["build_evaluator"]

_PANOPTIC_EVALUATORS = {
    "PanopticQualityEvaluator": PanopticQualityEvaluator,
    "COCOPanopticEvaluator": COCOPanopticEvaluator,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """mIoU, AP and PQ, as far as a data set's ground truth has them.

    Args:
        cfg: ``OUTPUT_DIR`` and ``TEST.PANOPTIC_EVALUATOR`` are read.
        dataset_name: its metadata's ``evaluator_type`` decides: ``coco_panoptic_seg`` gets all three, ``sem_seg``
            mIoU and ``coco`` AP.
        output_folder: default ``OUTPUT_DIR/inference``.

    Raises:
        ValueError: another ``evaluator_type``, or an unknown panoptic evaluator.
    """
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    PathManager.mkdirs(output_folder)
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    evaluators: list[DatasetEvaluator] = []
    if evaluator_type in ("sem_seg", "coco_panoptic_seg"):
        evaluators.append(_sem_seg_evaluator(dataset_name, output_folder))
    if evaluator_type in ("coco", "coco_panoptic_seg"):
        evaluators.append(_instance_evaluator(cfg, dataset_name, output_folder))
    if evaluator_type == "coco_panoptic_seg":
        # The last one, because detectron2's changes the model's outputs.
        evaluators.append(_panoptic_evaluator(cfg, dataset_name, output_folder))
    if not evaluators:
        raise ValueError(
            f"No evaluator for data set {dataset_name!r}: its metadata have evaluator_type {evaluator_type!r}; "
            "known are 'coco_panoptic_seg', 'coco' and 'sem_seg'."
        )
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _sem_seg_evaluator(dataset_name: str, output_folder: str) -> DatasetEvaluator:
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
