"""Panoptic Quality of predictions on disk, of any model: panopticapi's call and result."""

import os
from collections.abc import Hashable, Iterator
from typing import Any

from detectron2.utils.file_io import PathManager

from ..panoptic_png import read_panoptic_png
from .ground_truth import GroundTruth, read_json
from .panoptic_quality import ImageCounts, PQCounts, count_image
from .problems import Problems
from .records import ImageRecords, fold_records
from .report import warn_of_wrong_areas
from .segments import parse_segments

__all__ = ["count_files", "pq_compute"]

StrPath = str | os.PathLike[str]


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
    truth = GroundTruth(os.fspath(gt_json_file), _folder(gt_json_file, gt_folder))
    folder = PathManager.get_local_path(_folder(pred_json_file, pred_folder))
    if not PathManager.isdir(folder):
        raise FileNotFoundError(f"Folder {folder} with the predictions' panoptic PNGs does not exist.")
    problems = Problems()
    problems.include([truth.problems])
    predictions = _predictions_by_image(read_json(os.fspath(pred_json_file)), problems)
    records = ImageRecords()
    for position, counts in _count_images(truth, predictions, folder, problems):
        records.add(position, counts)
    problems.raise_if_any()
    warn_of_wrong_areas(records.num_wrong_areas)
    return fold_records([records], truth.categories)


def _folder(json_file: StrPath, folder: StrPath | None) -> str:
    return os.fspath(folder) if folder is not None else os.fspath(json_file).removesuffix(".json")


def _predictions_by_image(content: dict[str, Any], problems: Problems) -> dict[Hashable, dict[str, Any]]:
    result: dict[Hashable, dict[str, Any]] = {}
    for index, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            problems.add(f"prediction {index}: the JSON lacks the field 'image_id'")
            continue
        if annotation["image_id"] in result:
            problems.add(f"image {annotation['image_id']!r}, prediction: the JSON has it more than once")
        result[annotation["image_id"]] = annotation
    return result


def _count_images(
    truth: GroundTruth, predictions: dict[Hashable, dict[str, Any]], folder: str, problems: Problems
) -> Iterator[tuple[int, ImageCounts]]:
    for position, image_id in enumerate(truth.image_ids):
        try:
            if image_id not in predictions:
                raise ValueError("no prediction for it")
            yield position, _count_annotation(truth, position, predictions[image_id], folder)
        except (ValueError, FileNotFoundError) as error:
            problems.add(f"image {image_id!r}: {error}", position)
        except KeyError as error:
            problems.add(f"image {image_id!r}, prediction: the JSON lacks the field {error}", position)
        except TypeError as error:  # a list that is null, say
            problems.add(f"image {image_id!r}, prediction: the JSON is not as COCO has it ({error})", position)


def _count_annotation(truth: GroundTruth, position: int, annotation: dict[str, Any], folder: str) -> ImageCounts:
    segments, problems = parse_segments(annotation["segments_info"], truth.category_index, predicted=True)
    if problems:
        raise ValueError(f"prediction: {'; '.join(problems)}")
    ids = read_panoptic_png(os.path.join(folder, annotation["file_name"]))
    return count_image(*truth.compare(position, ids, segments))
