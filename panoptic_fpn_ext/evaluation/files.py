"""Panoptic Quality of predictions on disk, of any model: panopticapi's call and result."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.utils.file_io import PathManager

from ..coco_json import image_key, read_predictions
from ..panoptic_png import read_panoptic_png
from .ground_truth import GroundTruth
from .panoptic_quality import ImageCounts, PQCounts, count_image
from .problems import Problems
from .records import ImageRecords, fold_records
from .report import wrong_areas
from .segments import DifferentSizesError, SegmentMap, parse_segments

__all__ = ["compare_files", "count_files", "pq_compute"]

logger = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]
CountImage = Callable[[GroundTruth, int, SegmentMap, SegmentMap, dict[str, Any]], ImageCounts]


def pq_compute(
    gt_json_file: StrPath,
    pred_json_file: StrPath,
    gt_folder: StrPath | None = None,
    pred_folder: StrPath | None = None,
) -> dict[str, Any]:
    """As ``panopticapi.evaluation.pq_compute``, with the bits of its ``pq_compute_single_core``; prints nothing.

    Args:
        gt_json_file: COCO panoptic JSON of the ground truth.
        pred_json_file: COCO panoptic JSON of the predictions; images that the ground truth lacks are left out.
        gt_folder: the ground truth's PNGs; the JSON's path without ``.json`` where None.
        pred_folder: the predictions' PNGs; the same rule.

    Returns:
        See ``PQCounts.summarize``: fractions under ``"All"``, ``"Things"``, ``"Stuff"`` and ``"per_class"``.

    Raises:
        FileNotFoundError: a JSON or folder is absent.
        ValueError: anything wrong with the data, in one message that counts the cases and shows the first ten.
    """
    return count_files(gt_json_file, pred_json_file, gt_folder, pred_folder).summarize()


def count_files(
    gt_json_file: StrPath,
    pred_json_file: StrPath,
    gt_folder: StrPath | None = None,
    pred_folder: StrPath | None = None,
) -> PQCounts:
    """The counts behind :func:`pq_compute`, same arguments and errors."""
    files = gt_json_file, pred_json_file, gt_folder, pred_folder
    truth, records, _ = compare_files(*files, lambda _truth, _position, gt, pred, _annotation: count_image(gt, pred))
    return fold_records([records], truth.categories)


def compare_files(
    gt_json_file: StrPath,
    pred_json_file: StrPath,
    gt_folder: StrPath | None,
    pred_folder: StrPath | None,
    count: CountImage,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[GroundTruth, ImageRecords, list[str]]:
    """Count image by image; arguments and errors as :func:`pq_compute`.

    Gives the ground truth, the counts, and what is odd about the files and was only warned of.

    Args:
        gt_json_file, pred_json_file, gt_folder, pred_folder: as there.
        count: called with the ground truth, the image's position in it, both maps and the prediction's annotation; a
            ``ValueError`` is one of this image.
        progress: takes the positions and gives them back one by one.
    """
    truth = GroundTruth(os.fspath(gt_json_file), _folder(gt_json_file, gt_folder))
    folder = PathManager.get_local_path(_folder(pred_json_file, pred_folder))
    if not PathManager.isdir(folder):
        raise FileNotFoundError(f"Folder {folder} with the predictions' panoptic PNGs does not exist.")
    problems = Problems()
    refused: set[str | None] = set()

    def refuse(key: str | None, text: str) -> None:
        position = None if key is None else truth.position(key)
        problems.add(text, -1 if position is None else position)
        refused.add(key)

    gt_json, pred_json = os.fspath(gt_json_file), os.fspath(pred_json_file)
    predictions = read_predictions(pred_json, truth.category_list, gt_json, refuse)
    records = ImageRecords()
    for position in progress(range(len(truth))):
        image_id = truth.image_ids[position]
        key = image_key(image_id)
        try:
            if key in predictions:
                records.add(position, _count_annotation(truth, position, predictions[key], folder, count))
            elif key not in refused:
                raise ValueError(f"no prediction for it in {pred_json_file}, but {gt_json_file} has it")
        except FileNotFoundError as error:
            problems.add(f"image {image_id!r}: {error} Put it there, or name another folder.", position)
        except ValueError as error:
            problems.add(f"image {image_id!r}: {error}", position)
    problems.raise_if_any()
    notes = list(_notes(truth, records, set(predictions), pred_json, gt_json))
    for note in notes:
        logger.warning(note)
    return truth, records, notes


def _notes(
    truth: GroundTruth, records: ImageRecords, predicted: set[str], pred_json: str, gt_json: str
) -> Iterator[str]:
    unknown = sorted(predicted - set(map(image_key, truth.image_ids)))
    if unknown:
        some = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        yield f"{pred_json} has {len(unknown)} images that {gt_json} lacks; they are left out: {some}."
    if text := wrong_areas(records.num_wrong_areas):
        yield text
    if truth.misfit:
        yield (
            f"{truth.misfit} As in panopticapi, the former are missed segments, the latter neither void nor a segment. "
            "Other PNGs are not named."
        )


def _folder(json_file: StrPath, folder: StrPath | None) -> str:
    return os.fspath(folder) if folder is not None else os.fspath(json_file).removesuffix(".json")


def _count_annotation(
    truth: GroundTruth,
    position: int,
    annotation: dict[str, Any],
    folder: str,
    count: CountImage,
) -> ImageCounts:
    segments, _ = parse_segments(annotation["segments_info"], truth.category_index, predicted=True)
    path = os.path.join(folder, annotation["file_name"])
    try:
        maps = truth.compare(position, read_panoptic_png(path), segments)
    except DifferentSizesError as error:
        raise ValueError(f"{error}; give {path} the image's size, each pixel the id of its nearest one") from error
    try:
        return count(truth, position, *maps, annotation)
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from error
