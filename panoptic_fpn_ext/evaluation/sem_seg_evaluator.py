"""mIoU of the semantic outputs against panoptic ground truth, without prepared semantic PNGs."""

import json
import logging
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..categories import PanopticCategories
from ..panoptic_map import check_panoptic_map, relabel
from ..panoptic_png import read_panoptic_png
from ..unique_names import distinct_names

__all__ = ["PanopticSemSegEvaluator", "summarize_confusion"]

logger = logging.getLogger(__name__)


class PanopticSemSegEvaluator(DatasetEvaluator):
    """detectron2's `SemSegEvaluator` for datasets that have only panoptic PNGs.

    Void pixels do not count; crowd segments count as their category. The results have detectron2's keys: ``mIoU``,
    ``fwIoU``, ``mACC``, ``pACC`` and ``IoU-NAME``, ``ACC-NAME``, in percent. Must be called from all processes.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None, *, count_absent_classes: bool = False) -> None:
        """
        Args:
            dataset_name: a dataset whose dicts have ``pan_seg_file_name`` and ``segments_info``.
            output_dir: where ``sem_seg_confusion.json`` goes; nothing is written without.
            count_absent_classes: see :func:`summarize_confusion`.
        """
        self._count_absent_classes = count_absent_classes
        self._categories = PanopticCategories.from_metadata(MetadataCatalog.get(dataset_name))
        self._records = {d["file_name"]: d for d in DatasetCatalog.get(dataset_name)}
        self._output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        size = self._categories.num_sem_seg_classes
        self._confusion = np.zeros((size, size), dtype=np.int64)  # ground truth × prediction

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count a batch: ``inputs`` give ``file_name``, ``outputs`` give ``sem_seg``, float (C, H, W); neither is
        changed.
        """
        size = self._categories.num_sem_seg_classes
        for one_input, output in zip(inputs, outputs, strict=True):
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy()
            target = self._target(self._records[one_input["file_name"]])
            if labels.shape != target.shape:
                raise ValueError(
                    f"{one_input['file_name']}: the prediction is {labels.shape}, the ground truth {target.shape} "
                    "(height, width)."
                )
            labelled = target >= 0
            pairs = target[labelled] * size + labels[labelled]
            self._confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def evaluate(self) -> dict[str, Any] | None:
        """``{"sem_seg": results}`` on the main process, ``None`` elsewhere."""
        confusions = comm.gather(self._confusion)
        if not comm.is_main_process():
            return None
        confusion = sum(confusions, start=np.zeros_like(self._confusion))
        names = distinct_names(self._categories.sem_seg_classes, self._categories.sem_seg_dataset_ids)
        results = summarize_confusion(confusion, names, count_absent_classes=self._count_absent_classes)
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "sem_seg_confusion.json")
            with PathManager.open(path, "w", encoding="utf-8") as f:
                json.dump({"classes": names, "confusion": confusion.tolist()}, f)
        logger.info("Semantic segmentation: mIoU %.3f, pixel accuracy %.3f", results["mIoU"], results["pACC"])
        return OrderedDict(sem_seg=results)

    def _target(self, record: dict[str, Any]) -> npt.NDArray[np.int64]:
        """Semantic ids (H, W), -1 for void."""
        segments = record["segments_info"]
        semantic_ids = [
            self._categories.semantic_id(self._categories.dataset_id(s["category_id"], s["isthing"])) for s in segments
        ]
        ids = read_panoptic_png(record["pan_seg_file_name"])
        check_panoptic_map(ids, segments, record["pan_seg_file_name"])
        return relabel(ids, [s["id"] for s in segments], semantic_ids, -1)


def summarize_confusion(
    confusion: npt.NDArray[np.int64], names: list[str], *, count_absent_classes: bool = False
) -> dict[str, float]:
    """IoU and accuracy figures of a confusion matrix, in percent.

    Args:
        confusion: pixel counts (C, C), ground truth × prediction.
        names: C class names, all different.
        count_absent_classes: whether a class that is predicted and has no ground-truth pixel takes part in ``mIoU``
            with 0, as Cityscapes has it, instead of being NaN, as in detectron2.

    Returns:
        ``mIoU``, ``fwIoU``, ``mACC``, ``pACC``, and ``IoU-NAME``, ``ACC-NAME`` of each class. Classes without a
        ground-truth pixel are NaN and take no part in the means.
    """
    hits = confusion.diagonal().astype(float)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = truth > 0
    counts = occurs | (predicted > 0) if count_absent_classes else occurs
    accuracy = np.full(len(names), np.nan)
    iou = np.full(len(names), np.nan)
    accuracy[occurs] = 100 * hits[occurs] / truth[occurs]
    iou[counts] = 100 * hits[counts] / (truth + predicted - hits)[counts]
    total = max(int(truth.sum()), 1)
    results = {
        "mIoU": float(iou[counts].mean()) if counts.any() else float("nan"),
        "fwIoU": float((iou[occurs] * truth[occurs]).sum() / total),
    }
    results |= {f"IoU-{name}": float(value) for name, value in zip(names, iou, strict=True)}
    results["mACC"] = float(accuracy[occurs].mean()) if occurs.any() else float("nan")
    results["pACC"] = float(100 * hits.sum() / total)
    results |= {f"ACC-{name}": float(value) for name, value in zip(names, accuracy, strict=True)}
    return results
