"""Which evaluators a dataset gets."""

import json
import logging
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

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
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ...categories import PanopticCategories
from ...coco_json import read_panoptic
from ...console import captured_prints
from ...data.panoptic_catalog import CITYSCAPES_PANOPTIC, COCO_PANOPTIC, dataset_categories, is_panoptic
from ...evaluation import PanopticQualityEvaluator
from ...evaluation.cityscapes import CityscapesInstanceEvaluator
from ...evaluation.instance_ground_truth import instance_dataset
from ...evaluation.model_ids import unlisted_categories
from ...evaluation.sem_seg_evaluator import PanopticSemSegEvaluator
from ...image_files import read_labels
from ...modeling.outputs import OUTPUTS
from ...unique_names import distinct_names
from ..settings.model_outputs import model_outputs
from .evaluation_pages import ReportingEvaluator

__all__ = ["build_dataset_evaluator", "build_evaluator", "telling_outputs"]

logger = logging.getLogger(__name__)

# What can be measured by ``evaluator_type``.
_MEASURED_OUTPUTS = {
    COCO_PANOPTIC: ("sem_seg", "instances", "panoptic_seg"),
    CITYSCAPES_PANOPTIC: ("sem_seg", "instances", "panoptic_seg"),
    "coco": ("instances",),
    "sem_seg": ("sem_seg",),
}
_PANOPTIC_EVALUATORS = {
    "PanopticQualityEvaluator": PanopticQualityEvaluator,
    "COCOPanopticEvaluator": COCOPanopticEvaluator,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """:func:`build_dataset_evaluator` for the model of a config.

    ``TEST.PANOPTIC_EVALUATOR`` and ``TEST.REPORT`` are read too. ``output_folder`` is by default
    ``OUTPUT_DIR/inference``; where ``DATASETS.TEST`` has several names, each gets a folder in it.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    return build_dataset_evaluator(
        dataset_name,
        os.path.join(folder, dataset_name) if len(cfg.DATASETS.TEST) > 1 else folder,
        outputs=model_outputs(cfg),
        has_masks=cfg.MODEL.MASK_ON,
        panoptic_evaluator=cfg.TEST.get("PANOPTIC_EVALUATOR", "PanopticQualityEvaluator"),
        report=cfg.TEST.get("REPORT", False),
    )


def build_dataset_evaluator(
    dataset_name: str,
    output_folder: str,
    *,
    outputs: Iterable[str] = OUTPUTS,
    has_masks: bool = True,
    panoptic_evaluator: str = "PanopticQualityEvaluator",
    report: bool = False,
) -> DatasetEvaluator:
    """mIoU, AP and PQ, as far as a dataset's ground truth has them and the model predicts what they measure.

    Args:
        dataset_name: its metadata's ``evaluator_type`` decides: ``coco_panoptic_seg`` gets all three, and so does
            ``cityscapes_panoptic_seg``, with mIoU and AP as Cityscapes has them; ``sem_seg`` gets mIoU, ``coco`` AP.
        output_folder: of the evaluators' files.
        outputs: those of ``panoptic_seg``, ``instances`` and ``sem_seg`` that the model predicts.
        has_masks: whether its instances have masks.
        panoptic_evaluator: see ``TEST.PANOPTIC_EVALUATOR``.
        report: see ``TEST.REPORT``.

    Raises:
        ValueError: another ``evaluator_type``, an unknown panoptic evaluator, or a model that predicts nothing that the
            dataset can measure.
    """
    PathManager.mkdirs(output_folder)
    measured = _measured_outputs(dataset_name, frozenset(outputs))
    evaluators = []
    if "sem_seg" in measured:
        evaluators.append(_sem_seg_evaluator(dataset_name, output_folder))
    if "instances" in measured:
        evaluators.append(_instance_evaluator(dataset_name, output_folder, has_masks))
    if "panoptic_seg" in measured:
        # The last one, because detectron2's changes the model's outputs.
        evaluators.append(_panoptic_evaluator(dataset_name, output_folder, panoptic_evaluator, report))
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _measured_outputs(dataset_name: str, predicted: frozenset[str]) -> frozenset[str]:
    """Of what a model predicts, what the dataset has ground truth for: not nothing."""
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in _MEASURED_OUTPUTS:
        raise ValueError(
            f"No evaluator for dataset {dataset_name!r}: its metadata have evaluator_type {evaluator_type!r}; known "
            f"are {sorted(_MEASURED_OUTPUTS)}."
        )
    measured = predicted.intersection(_MEASURED_OUTPUTS[evaluator_type])
    if not measured:
        raise ValueError(
            f"Dataset {dataset_name!r} has ground truth for {list(_MEASURED_OUTPUTS[evaluator_type])}, but the model "
            f"predicts {sorted(predicted)} (MODEL.META_ARCHITECTURE, MODEL.PANOPTIC_FPN.OUTPUTS)."
        )
    return telling_outputs(measured, dataset_categories(dataset_name)) if is_panoptic(dataset_name) else measured


def telling_outputs(outputs: frozenset[str], categories: PanopticCategories) -> frozenset[str]:
    """Of several outputs, those whose metrics say something: there is no AP without things, and where "things" is the
    only semantic class, every pixel is right.
    """
    if len(outputs) > 1 and not categories.num_things:
        outputs -= {"instances"}
    if len(outputs) > 1 and categories.num_sem_seg_classes == 1:
        outputs -= {"sem_seg"}
    return outputs


def _sem_seg_evaluator(dataset_name: str, output_folder: str) -> DatasetEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    if hasattr(metadata, "sem_seg_root"):
        evaluator = SemSegEvaluator(dataset_name, output_dir=output_folder, sem_seg_loading_fn=load_sem_seg)
        ids = {index: id_ for id_, index in metadata.get("stuff_dataset_id_to_contiguous_id", {}).items()}
        names = metadata.stuff_classes
        evaluator._class_names = distinct_names(names, [ids.get(index, index) for index in range(len(names))])
        return evaluator
    official = _is_cityscapes(dataset_name)
    return PanopticSemSegEvaluator(dataset_name, output_dir=output_folder, count_absent_classes=official)


def _is_cityscapes(dataset_name: str) -> bool:
    return MetadataCatalog.get(dataset_name).get("evaluator_type") == CITYSCAPES_PANOPTIC


def load_sem_seg(path: str, dtype: type = int) -> npt.NDArray[np.integer]:
    """Labels (H, W) of a semantic PNG; detectron2's own function needs numpy 1."""
    return read_labels(path).astype(dtype)


def _instance_evaluator(dataset_name: str, output_folder: str, has_masks: bool) -> DatasetEvaluator:
    if _is_cityscapes(dataset_name) and has_masks:
        return CityscapesInstanceEvaluator(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if hasattr(metadata, "panoptic_json"):
        instances_json = os.path.join(output_folder, f"{quote(dataset_name, safe='')}_instances.json")
        dataset_name = instance_dataset(dataset_name, instances_json)
    # Said here, because detectron2 leaves out what no prediction has, and a young model may predict nothing.
    tasks = ("bbox", "segm") if has_masks else ("bbox",)
    return _InstanceEvaluator(dataset_name, tasks, output_dir=output_folder)


class _InstanceEvaluator(COCOEvaluator):
    """detectron2's, whose printed tables go to the log."""

    def evaluate(self, img_ids: Any = None) -> dict[str, Any]:
        """As the base class."""
        with captured_prints(logger):
            results: dict[str, Any] = super().evaluate(img_ids)
        names = {"bbox": "box AP", "segm": "mask AP"}
        figures = [f"{name} {results[task]['AP']:.3f}" for task, name in names.items() if task in results]
        if figures:
            logger.info(f"Instances: {', '.join(figures)}")
        return results


def _panoptic_evaluator(dataset_name: str, output_folder: str, name: str, report: bool) -> DatasetEvaluator:
    if name not in _PANOPTIC_EVALUATORS:
        raise ValueError(f"TEST.PANOPTIC_EVALUATOR must be one of {sorted(_PANOPTIC_EVALUATORS)}, got {name!r}.")
    unlisted = [row["name"] for row in unlisted_categories(MetadataCatalog.get(dataset_name))]
    if unlisted and name == "COCOPanopticEvaluator":
        raise ValueError(
            "TEST.PANOPTIC_EVALUATOR COCOPanopticEvaluator fails on predictions of categories that the JSON of dataset "
            f"{dataset_name!r} does not list ({', '.join(unlisted)}). List them, or take PanopticQualityEvaluator."
        )
    if report and name == "COCOPanopticEvaluator":
        raise ValueError(
            "TEST.REPORT needs TEST.PANOPTIC_EVALUATOR PanopticQualityEvaluator: COCOPanopticEvaluator keeps no PNGs."
        )
    if report:
        return ReportingEvaluator(dataset_name, output_folder, explain=True)
    if name == "COCOPanopticEvaluator":
        dataset_name = _plain_dataset(dataset_name, output_folder)
    return _PANOPTIC_EVALUATORS[name](dataset_name, output_folder)


def _plain_dataset(dataset_name: str, output_folder: str) -> str:
    """The dataset with its JSON as our reader has it, for evaluators that take every field as it is."""
    metadata = MetadataCatalog.get(dataset_name)
    path = os.path.join(output_folder, f"{quote(dataset_name, safe='')}_panoptic.json")
    if comm.is_main_process():
        content = read_panoptic(metadata.panoptic_json)
        with PathManager.open(path, "w", encoding="utf-8") as f:
            json.dump(content, f)
    comm.synchronize()
    derived = MetadataCatalog.get(f"{dataset_name}@{path}")
    derived.set(**{key: value for key, value in metadata.as_dict().items() if key != "name"} | {"panoptic_json": path})
    return str(derived.name)
