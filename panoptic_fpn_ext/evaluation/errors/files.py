"""Errors of predictions on disk, of any model, in COCO's panoptic format."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..files import StrPath, compare_files
from ..ground_truth import GroundTruth
from ..panoptic_quality import ImageCounts, compare_image
from ..records import fold_records
from ..segments import SegmentMap
from .analysis import PanopticErrors
from .records import ErrorRecords, join_records

__all__ = ["explain_files"]


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
    kept: list[ErrorRecords] = []

    def count(
        truth: GroundTruth, position: int, gt: SegmentMap, pred: SegmentMap, annotation: dict[str, Any]
    ) -> ImageCounts:
        if not kept:
            kept.append(ErrorRecords(truth))
        compared = compare_image(gt, pred)
        kept[0].add(position, (gt, pred), compared, annotation["segments_info"], annotation["file_name"])
        return compared.counts

    truth, records, notes = compare_files(gt_json_file, pred_json_file, gt_folder, pred_folder, count, progress)
    counts = fold_records([records], truth.categories)
    return replace(join_records(truth, [errors.state_dict() for errors in kept], counts), notes=tuple(notes))
