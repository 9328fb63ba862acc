"""The one strict reader of COCO JSONs: panoptic and instance annotations, predictions, lists of categories.

Every JSON that people supply comes in here. Its fields are converted once, by the tables of :mod:`.coco_fields`; what
does not fit them is refused in one sentence that names file, image, segment and field.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util

from .coco_fields import (
    ANNOTATION,
    CATEGORY,
    IMAGE,
    INSTANCE,
    INSTANCE_CATEGORY,
    MISSING,
    PREDICTED_SEGMENT,
    SEGMENT,
    UNNAMED_CATEGORY,
    Field,
    Refuse,
    Row,
    convert_rows,
    raise_error,
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
    content["categories"] = _convert_categories(content["categories"], CATEGORY if complete else UNNAMED_CATEGORY, path)
    annotations = content["annotations"]
    ids = _read_images(content["images"], path) if complete else None
    convert_rows(annotations, ANNOTATION, _naming(path, annotations, "annotation", ("image_id", "file_name")))
    _join_images(annotations, ids, path)
    known = {row["id"] for row in content["categories"]}
    _convert_segments(annotations, SEGMENT, known, raise_error, lambda i: _annotation_name(path, annotations[i]))
    return content


def read_categories(path: str) -> list[Row]:
    """The categories of a COCO panoptic annotation file, checked and converted; annotations are not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that format, or a category is wrong.
    """
    return category_rows(
        _load_lists(path, "Panoptic JSON", ("images", "annotations", "categories"))["categories"], path
    )


def read_predictions(
    path: str, categories: Collection[int], refuse: Callable[[str | None, str], None]
) -> dict[str, Row]:
    """Predictions in COCO's panoptic format, checked and converted.

    Args:
        path: the JSON.
        categories: dataset ids that a segment may have.
        refuse: called for each prediction that is wrong with the :func:`image_key` of its image, None if it has none,
            and a sentence that names image and field.

    Returns:
        By :func:`image_key`: the predictions that are right, with ``file_name`` and ``segments_info``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no list of annotations.
    """
    rows = _load_lists(path, "Panoptic JSON", ("annotations",))["annotations"]
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
    _refuse_repeated_images(rows, wrong, name, note)
    right = [index for index in range(len(rows)) if index not in wrong]
    _convert_segments(
        [rows[i] for i in right],
        PREDICTED_SEGMENT,
        categories,
        lambda i, text: note(right[i], text),
        lambda i: name(right[i]),
    )
    return {image_key(rows[index]["image_id"]): rows[index] for index in right if index not in wrong}


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
    content["categories"] = _convert_categories(content["categories"], INSTANCE_CATEGORY, path)
    annotations = content["annotations"]
    ids = _read_images(content["images"], path)
    name = _naming(path, annotations, "annotation", ("id", "image_id"))
    convert_rows(annotations, INSTANCE, name)
    _meet_images(annotations, ids, name)
    _refuse_unknown_categories(annotations, {row["id"] for row in content["categories"]}, name, raise_error)
    times = Counter(row["id"] for row in annotations if "id" in row)
    for index, row in enumerate(annotations):
        if times.get(row.get("id"), 0) > 1:
            raise ValueError(f"{name(index)}: {times[row['id']]} annotations have this id. Give each an id of its own.")
        if row.get("ignore"):
            raise ValueError(f'{name(index)}: "ignore" is not supported. Make it iscrowd 1, or remove the annotation.')
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    _refuse_other_sizes(annotations, sizes, name)
    for row in annotations:
        if "area" not in row or "bbox" not in row:
            row.update({**_measured(row["segmentation"], sizes[row["image_id"]]), **row})
    return content


def category_rows(categories: Sequence[Mapping[str, Any]], where: str = "categories") -> list[Row]:
    """The ``categories`` of a COCO panoptic JSON, checked and converted, as new dicts.

    Args:
        categories: with ``id``, ``name``, ``isthing`` and, if given, ``color``; other fields are kept.
        where: file or list, for messages.

    Raises:
        ValueError: no category, a field that is wrong, or an id twice.
    """
    return _convert_categories(categories, CATEGORY, where)


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
    convert_rows(rows, PREDICTED_SEGMENT if predicted else SEGMENT, lambda index: _segment_name(where, rows[index]))
    return rows


def _given_id(row: Any) -> Any:
    """The image id of a record that may be anything."""
    return row.get("image_id", MISSING) if isinstance(row, dict) else MISSING


def image_key(image_id: Any) -> str:
    """What two ids of one image have in common: files may write ``7`` and ``"7"``."""
    return str(image_id)


def _load_lists(path: str, kind: str, keys: Sequence[str]) -> Row:
    content = load_json(path, kind)
    form = f"{path} is not in COCO {kind.split()[0].lower()} format"
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{form}: it lacks {missing}.")
    no_lists = [key for key in keys if not isinstance(content[key], list)]
    if no_lists:
        raise ValueError(f"{form}: {no_lists} must be lists.")
    row: Row = content
    return row


def ids_shown(ids: Iterable[int]) -> str:
    """Ids for a message, the first twenty of many."""
    some = sorted(ids)
    return str(some) if len(some) <= 20 else f"[{', '.join(map(str, some[:20]))}, … {len(some)} in all]"


def _naming(where: str, rows: Sequence[Any], kind: str, keys: Sequence[str]) -> Callable[[int], str]:
    """Names of records: their kind, their place in the list and what of these keys they have."""

    def name(index: int) -> str:
        row = rows[index]
        given = [f"{key} {shown(row[key])}" for key in keys if isinstance(row, dict) and key in row]
        return f"{where}: {kind} {index}" + (f" ({', '.join(given)})" if given else "")

    return name


def _annotation_name(path: str, annotation: Row) -> str:
    return f"{path}, annotation of image {annotation['image_id']!r} ({annotation['file_name']})"


def _segment_name(where: str, segment: Any) -> str:
    given = isinstance(segment, dict) and "id" in segment
    return f"{where}: segment {shown(segment['id'])}" if given else f"{where}: a segment"


# -- what records have in common ------------------------------------------------------------------------------------


def _convert_categories(categories: Any, table: Mapping[str, Field], where: str) -> list[Row]:
    if isinstance(categories, (str, bytes, Mapping)) or not isinstance(categories, Iterable):
        raise ValueError(f"{where}: categories must be a list of objects, got {shown(categories)}.")
    rows = [dict(row) if isinstance(row, Mapping) else row for row in categories]
    convert_rows(rows, table, _naming(where, rows, "category", ("id", "name")))
    ids = [row["id"] for row in rows]
    duplicates = sorted(i for i, times in Counter(ids).items() if times > 1)
    if not ids or duplicates:
        found = f"got duplicates: {duplicates}" if ids else "got no category"
        raise ValueError(f"{where}: Category ids must be unique, {found}. Each category needs an id of its own.")
    return rows


def _read_images(images: list[Row], path: str) -> dict[str, Any]:
    """Check the ids of a list of images; returns them by :func:`image_key`. Where one is text, all become text."""
    name = _naming(path, images, "image", ("id", "file_name"))
    convert_rows(images, IMAGE, name)
    if len(set(map(type, (image["id"] for image in images)))) > 1:
        for image in images:
            image["id"] = str(image["id"])
    ids = {image_key(image["id"]): image["id"] for image in images}
    if len(ids) < len(images):
        twice = [key for key, times in Counter(image_key(image["id"]) for image in images).items() if times > 1]
        raise ValueError(f"{path} lists more than one image with id {', '.join(twice[:10])}. Keep one of each.")
    return ids


def _join_images(annotations: list[Row], ids: Mapping[str, Any] | None, path: str) -> None:
    """Give annotations the ids of the images, each once."""
    if ids is not None:
        _meet_images(annotations, ids, lambda index: _annotation_name(path, annotations[index]))
    elif len({type(row["image_id"]) for row in annotations}) > 1:
        for row in annotations:
            row["image_id"] = str(row["image_id"])
    twice = [i for i, times in Counter(row["image_id"] for row in annotations).items() if times > 1]
    if twice:
        shown = ", ".join(map(str, twice[:10]))
        raise ValueError(f"{path} annotates the same image more than once: {shown}. Keep one annotation of each.")


def _meet_images(annotations: list[Row], ids: Mapping[str, Any], name: Callable[[int], str]) -> None:
    for index, row in enumerate(annotations):
        key = image_key(row["image_id"])
        if key not in ids:
            raise ValueError(
                f"{name(index)}: there is no such image in the list of images ({shown(row['image_id'])}). Add it "
                "there, or remove the annotation."
            )
        row["image_id"] = ids[key]


def _refuse_repeated_images(rows: list[Row], wrong: set[int], name: Callable[[int], str], refuse: Refuse) -> None:
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if index in wrong:
            continue
        key = image_key(row["image_id"])
        if key in seen:
            refuse(index, f"{name(index)}: the JSON has it more than once")
        seen.add(key)


def _convert_segments(
    annotations: Sequence[Row],
    table: Mapping[str, Field],
    categories: Collection[int],
    refuse: Refuse,
    name: Callable[[int], str],
) -> None:
    """Check and convert the segments of all annotations at once; ``refuse`` and ``name`` are those of annotations."""
    rows = list(chain.from_iterable(annotation["segments_info"] for annotation in annotations))
    owners = list(chain.from_iterable([i] * len(a["segments_info"]) for i, a in enumerate(annotations)))
    wrong: set[int] = set()

    def name_segment(index: int) -> str:
        return _segment_name(name(owners[index]), rows[index])

    def refuse_segment(index: int, text: str) -> None:
        wrong.add(owners[index])
        refuse(owners[index], text)

    convert_rows(rows, table, name_segment, refuse_segment)
    for index, annotation in enumerate(annotations):
        segments = annotation["segments_info"]
        if index not in wrong and len({segment["id"] for segment in segments}) < len(segments):
            twice = [i for i, times in Counter(segment["id"] for segment in segments).items() if times > 1]
            text = f"segment ids {ids_shown(twice)} occur more than once in segments_info"
            refuse(index, f"{name(index)}: {text}. Each segment needs an id of its own.")
            wrong.add(index)
    right = [index for index in range(len(rows)) if owners[index] not in wrong] if wrong else range(len(rows))
    _refuse_unknown_categories(
        [rows[i] for i in right],
        categories,
        lambda i: name_segment(right[i]),
        lambda i, text: refuse_segment(right[i], text),
    )


def _refuse_unknown_categories(
    rows: Sequence[Row], categories: Collection[int], name: Callable[[int], str], refuse: Refuse
) -> None:
    if {row["category_id"] for row in rows} <= set(categories):
        return
    for index, row in enumerate(rows):
        if row["category_id"] not in categories:
            known = ids_shown(categories)
            refuse(index, f"{name(index)} has an unknown category: {row['category_id']}, which is not in {known}.")


def _refuse_other_sizes(annotations: list[Row], sizes: Mapping[Any, list[int]], name: Callable[[int], str]) -> None:
    """Run-length encodings are of the whole image."""
    for index, row in enumerate(annotations):
        size, segmentation = sizes[row["image_id"]], row["segmentation"]
        if isinstance(segmentation, dict) and segmentation["size"] != size:
            raise ValueError(
                f"{name(index)}: segmentation has size {segmentation['size']} and its image {size} (height, width). "
                "Both must be the image's."
            )


def _measured(segmentation: Any, size: list[int]) -> Row:
    """``area`` (px) and ``bbox`` of a segmentation, for annotations that have none."""
    encoded = mask_util.frPyObjects(segmentation, *size) if _is_uncompressed(segmentation) else segmentation
    rle = mask_util.merge(encoded) if isinstance(encoded, list) else encoded
    return {"area": int(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist()}


def _is_uncompressed(segmentation: Any) -> bool:
    return isinstance(segmentation, list) or isinstance(segmentation["counts"], list)
