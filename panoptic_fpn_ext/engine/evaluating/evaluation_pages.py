"""What people look at after an evaluation: its report, and images and PQ by class in TensorBoard."""

import logging
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

from ...coco_json import load_json
from ...evaluation import PanopticQualityEvaluator
from ...report.runs import find_evaluation, report_of_run
from ...report.sheets import comparison_sheets

__all__ = ["PQ_BY_CLASS", "ReportingEvaluator", "write_to_board"]

PQ_BY_CLASS = "PQ_by_class/"
"""What the names of the figures by dataset and class begin with in ``metrics.json`` and on the board."""

logger = logging.getLogger(__name__)

_IMAGES = 4
"""How many images of each dataset TensorBoard gets at every evaluation."""


class ReportingEvaluator(PanopticQualityEvaluator):
    """As the base class, and :meth:`evaluate` ends with ``report.html`` beside its other files.

    With ``explain=True`` the causes of errors are found while the model runs, and only the images that are shown are
    read again. A report that cannot be written is an error in the log: the results are not lost for it.
    """

    def evaluate(self) -> dict[str, Any] | None:
        """As the base class."""
        results = super().evaluate()
        if results is not None and self.output_dir is not None:
            try:
                page = os.path.join(self.output_dir, "report.html")
                path = report_of_run(self.output_dir, page, errors=self.errors)[0]
                logger.info(f"Report: {path}")
            except Exception as error:
                logger.error(f"The report of {self.output_dir} could not be written: {error}", exc_info=error)
        return results


def write_to_board(evaluator: DatasetEvaluator) -> None:
    """Put PQ by class and some images, ground truth beside prediction, into the event storage of a training.

    Nothing happens outside a training, and nothing but a warning where files are missing. To be called when
    ``evaluator`` has finished.
    """
    storage = _storage()
    if storage is None or not comm.is_main_process():
        return
    for part in getattr(evaluator, "_evaluators", [evaluator]):
        if isinstance(part, PanopticQualityEvaluator) and part.output_dir is not None:
            try:
                _write(storage, part.output_dir)
            except (OSError, ValueError) as error:
                logger.warning(f"TensorBoard gets no images of this evaluation: {error}")


def _storage() -> EventStorage | None:
    try:
        return get_event_storage()
    except AssertionError:  # no training is at work
        return None


def _write(storage: EventStorage, folder: str) -> None:
    dataset = find_evaluation(folder)["dataset"]
    for row in load_json(os.path.join(folder, "panoptic_quality.json"))["per_class"]:
        if row["tp"] + row["fp"] + row["fn"] and row["pq"] is not None:
            storage.put_scalar(f"{PQ_BY_CLASS}{dataset}/{row['name']}", 100 * row["pq"], smoothing_hint=False)
    for number, sheet in enumerate(comparison_sheets(folder, _IMAGES)):
        storage.put_image(f"{dataset}/{number}", _channels_first(sheet))


def _channels_first(sheet: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(sheet.transpose(2, 0, 1))
