"""The one strict reader of COCO JSONs: panoptic and instance annotations, predictions, lists of categories.

Every JSON that people supply comes in here. Its fields are converted once, by the tables of :mod:`.coco_fields`; what
does not fit them is refused in one sentence that names file, image, segment and field.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.utils.file_io import PathManager

from .category_comparison import refuse_different_categories
from .coco_fields import (
    ANNOTATION,
    CATEGORY,
    INSTANCE,
    INSTANCE_CATEGORY,
    MISSING,
    PREDICTED_CATEGORY,
    PREDICTED_SEGMENT,
    SEGMENT,
    UNNAMED_CATEGORY,
    Row,
)
from .coco_records import (
    annotation_name,
    convert_categories,
    convert_images,
    convert_rows,
    convert_segments,
    ids_shown,
    image_key,
    join_images,
    measured,
    meet_images,
    naming,
    raise_error,
    refuse_other_sizes,
    refuse_repeated_images,
    refuse_unknown_categories,
    segment_name,
    shown,
)

__all__ = [
    "category_rows",
    "ids_shown",
    "image_key",
    "load_json",
    "read_categories",
    "read_instances",
    "read_panoptic",
    "read_predictions",
    "segment_rows",
]


def load_json(path: str, kind: str = "JSON") -> Any:
    """Contents of a JSON file in UTF-8, with or without a byte-order mark, whatever the system's locale is.

    Args:
        path: any path that detectron2's `PathManager` knows.
        kind: what the file is, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8, or no JSON.
    """
    if not PathManager.isfile(path):
        raise FileNotFoundError(f"{kind} {path} does not exist.")
    with PathManager.open(path, "rb") as f:
        data = f.read()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: it is not in UTF-8 ({error}). Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}. Is it complete?") from error


def read_panoptic(path: str, *, complete: bool = True) -> Row:
    """A COCO panoptic annotation file, checked and converted.

    Args:
        path: the file.
        complete: whether it needs a list of images and names of the categories, as training does and evaluation does
            not; without, image ids are those of the annotations.

    Returns:
        ``images``, ``annotations`` with ``segments_info``, and ``categories`` as COCO describes them. Ids are int,
        those of images text if one of them is; ``iscrowd`` and ``isthing`` are 0 or 1; ``color`` is [r, g, b]. Other
        fields stay as they are, as does the order of the lists.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that format; the message names file, image, segment and field.
    """
    content = _load_lists(path, "Panoptic JSON", ("images", "annotations", "categories")[0 if complete else 1 :])
    _refuse_instances(content["annotations"], path)
    content["categories"] = convert_categories(content["categories"], CATEGORY if complete else UNNAMED_CATEGORY, path)
    annotations = content["annotations"]
    if not annotations:
        raise ValueError(f"{path} lists no annotations: the dataset is empty.")
    ids = convert_images(content["images"], path) if complete else None
    convert_rows(annotations, ANNOTATION, naming(path, annotations, "annotation", ("image_id", "file_name")))
    join_images(annotations, ids, path)
    known = {row["id"] for row in content["categories"]}
    convert_segments(annotations, SEGMENT, known, raise_error, lambda i: annotation_name(path, annotations[i]))
    return content


def read_categories(path: str) -> list[Row]:
    """The categories of a COCO panoptic annotation file, checked and converted; annotations are not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that format, or a category is wrong.
    """
    content = _load_lists(path, "Panoptic JSON", ("images", "annotations", "categories"))
    _refuse_instances(content["annotations"], path)
    return category_rows(content["categories"], path)


def _refuse_instances(annotations: Sequence[Any], path: str) -> None:
    """Say which kind of file it is, not only which fields it lacks."""
    rows = [row for row in annotations if isinstance(row, dict)]
    if any("segmentation" in row or "bbox" in row for row in rows) and not any("segments_info" in row for row in rows):
        raise ValueError(
            f"{path} has COCO's annotations of instances, not panoptic ones: no annotation has 'segments_info'. "
            f"train_net.py takes it by --data 'coco {path}' in place of --register, and "
            f"python -m panoptic_fpn_ext.data.convert coco {path} converts it."
        )


def read_predictions(
    path: str, categories: Sequence[Row], truth: str, refuse: Callable[[str | None, str], None]
) -> dict[str, Row]:
    """Predictions in COCO's panoptic format, checked and converted.

    Args:
        path: the JSON. It need not list categories, nor the same ones; but an id must not stand for two things.
        categories: of the ground truth, those that a segment may have.
        truth: name of the ground truth's file.
        refuse: called for each prediction that is wrong with the :func:`image_key` of its image, None if it has none,
            and a sentence that names image and field.

    Returns:
        By :func:`image_key`: the predictions that are right, with ``file_name`` and ``segments_info``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no list of annotations, or lists other categories than the ground truth under their ids.
    """
    content = _load_lists(path, "Panoptic JSON", ("annotations",))
    _compare_categories(categories, truth, content.get("categories"), path)
    rows = content["annotations"]
    wrong: set[int] = set()

    def note(index: int, text: str) -> None:
        if index not in wrong:
            image = _given_id(rows[index])
            refuse(None if image is MISSING else image_key(image), text)
        wrong.add(index)

    def name(index: int) -> str:
        image = _given_id(rows[index])
        return f"{path}: " + (f"prediction {index}" if image is MISSING else f"image {image!r}, prediction")

    convert_rows(rows, ANNOTATION, name, note)
    refuse_repeated_images(rows, wrong, name, note)
    right = [index for index in range(len(rows)) if index not in wrong]
    convert_segments(
        [rows[i] for i in right],
        PREDICTED_SEGMENT,
        {row["id"] for row in categories},
        lambda i, text: note(right[i], text),
        lambda i: name(right[i]),
    )
    return {image_key(rows[index]["image_id"]): rows[index] for index in right if index not in wrong}


def _compare_categories(categories: Sequence[Row], truth: str, predicted: Any, path: str) -> None:
    if not predicted:
        return
    refuse_different_categories(
        categories,
        truth,
        convert_categories(predicted, PREDICTED_CATEGORY, path),
        path,
        remedy="The figures would be of different categories: give the predictions the ids of the ground truth, or, if "
        'only the names differ, take "categories" out of their JSON.',
        may_be_part=True,
        may_have_more=True,
    )


def read_instances(path: str) -> Row:
    """A COCO instance annotation file, checked and converted.

    Returns:
        ``images``, ``annotations`` and ``categories``; every annotation has ``iscrowd``, ``area``, ``bbox`` and its
        image's ``image_id``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that format; the message names file, image, annotation and field.
    """
    content = _load_lists(path, "Instance JSON", ("images", "annotations", "categories"))
    content["categories"] = convert_categories(content["categories"], INSTANCE_CATEGORY, path)
    annotations = content["annotations"]
    ids = convert_images(content["images"], path)
    name = naming(path, annotations, "annotation", ("id", "image_id"))
    convert_rows(annotations, INSTANCE, name)
    meet_images(annotations, ids, name)
    refuse_unknown_categories(annotations, {row["id"] for row in content["categories"]}, name, raise_error)
    times = Counter(row["id"] for row in annotations if "id" in row)
    for index, row in enumerate(annotations):
        if times.get(row.get("id"), 0) > 1:
            raise ValueError(f"{name(index)}: {times[row['id']]} annotations have this id. Give each an id of its own.")
        if row.get("ignore"):
            raise ValueError(f'{name(index)}: "ignore" is not supported. Make it iscrowd 1, or remove the annotation.')
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    refuse_other_sizes(annotations, sizes, name)
    for row in annotations:
        if "area" not in row or "bbox" not in row:
            row.update({**measured(row["segmentation"], sizes[row["image_id"]]), **row})
    return content


def category_rows(categories: Sequence[Mapping[str, Any]], where: str = "categories") -> list[Row]:
    """The ``categories`` of a COCO panoptic JSON, checked and converted, as new dicts.

    Args:
        categories: with ``id``, ``name``, ``isthing`` and, if given, ``color``; other fields are kept.
        where: file or list, for messages.

    Raises:
        ValueError: no category, a field that is wrong, or an id twice.
    """
    return convert_categories(categories, CATEGORY, where)


def segment_rows(segments: Sequence[Mapping[str, Any]], where: str, *, predicted: bool = False) -> list[Row]:
    """A ``segments_info`` list with dataset ids, checked and converted, as new dicts.

    Args:
        segments: with ``id``, ``category_id`` and, if given and not ``predicted``, ``iscrowd``, ``area`` and ``bbox``.
        where: for messages.
        predicted: the list is a prediction's, whose ``iscrowd`` and ``area`` mean nothing.

    Raises:
        ValueError: a field that is wrong.
    """
    rows = [dict(row) if isinstance(row, Mapping) else row for row in segments]
    convert_rows(rows, PREDICTED_SEGMENT if predicted else SEGMENT, lambda index: segment_name(where, rows[index]))
    return rows


def _given_id(row: Any) -> Any:
    """The image id of a record that may be anything."""
    return row.get("image_id", MISSING) if isinstance(row, dict) else MISSING


def _load_lists(path: str, kind: str, keys: Sequence[str]) -> Row:
    content = load_json(path, kind)
    form = f"{path} is not in COCO {kind.split()[0].lower()} format"
    if not isinstance(content, dict):
        raise ValueError(f"{form}: it lacks {[*keys]}; it must be an object with these lists, got {shown(content)}.")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{form}: it lacks {missing}.")
    no_lists = [key for key in keys if not isinstance(content[key], list)]
    if no_lists:
        raise ValueError(f"{form}: {no_lists} must be lists.")
    row: Row = content
    return row
