"""Errors of predictions on disk, of any model, in COCO's panoptic format."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import StrPath, compare_files
from ..ground_truth import GroundTruth
from ..panoptic_quality import ImageCounts, compare_image
from ..records import fold_records
from ..segments import SegmentMap
from .analysis import ImageErrors, PanopticErrors
from .image import explain_image

__all__ = ["explain_files", "set_scores"]


def explain_files(
    gt_json_file: StrPath,
    pred_json_file: StrPath,
    gt_folder: StrPath | None = None,
    pred_folder: StrPath | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> PanopticErrors:
    """Why predictions lose points of PQ. One image is in memory at a time, of the others their tables of segments.

    Args:
        gt_json_file: COCO panoptic JSON of the ground truth.
        pred_json_file: COCO panoptic JSON of the predictions; its segments may have a ``score``.
        gt_folder, pred_folder: the PNGs; by default each JSON's path without ``.json``.
        progress: takes the positions of the images and gives them back one by one, as ``tqdm`` does.

    Raises:
        FileNotFoundError: a JSON or folder is absent.
        ValueError: anything wrong with the data, in one message that counts the cases and shows the first ten.
    """
    images: list[ImageErrors] = []

    def count(
        truth: GroundTruth, position: int, gt: SegmentMap, pred: SegmentMap, annotation: dict[str, Any]
    ) -> ImageCounts:
        compared = compare_image(gt, pred)
        rows = explain_image(gt, pred, compared, truth.isthing)
        set_scores(rows, annotation["segments_info"])
        names = truth.file_names[position], annotation["file_name"]
        images.append(ImageErrors(truth.image_ids[position], gt.shape[0], gt.shape[1], rows, *names))
        return compared.counts

    truth, records = compare_files(gt_json_file, pred_json_file, gt_folder, pred_folder, count, progress)
    return PanopticErrors(truth.categories, tuple(images), fold_records([records], truth.categories))


def set_scores(rows: npt.NDArray[np.void], segments: Sequence[Mapping[str, Any]]) -> None:
    """Write the scores of predicted segments, where they have some, into the table of their image.

    Raises:
        ValueError: a score that is no finite number.
    """
    scores = {segment["id"]: segment["score"] for segment in segments if segment.get("score") is not None}
    for id_, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"prediction: the score of segment {id_} must be a number, got {score!r}")
    if scores:
        predicted = rows["predicted"]
        rows["score"][predicted] = [scores.get(id_, np.nan) for id_ in rows["id"][predicted].tolist()]
