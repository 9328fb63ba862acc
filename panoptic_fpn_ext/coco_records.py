"""Records of COCO JSONs: converted by the tables of :mod:`.coco_fields`, joined by their ids, or refused by name.

Fields are converted by columns: a column whose values are all as they should be costs a few calls, any other is
converted value by value or refused.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from pycocotools import mask as mask_util

from .coco_fields import IMAGE, MISSING, REQUIRED, Field, Row

__all__ = [
    "Refuse",
    "annotation_name",
    "convert_categories",
    "convert_images",
    "convert_rows",
    "convert_segments",
    "ids_shown",
    "image_key",
    "join_images",
    "measured",
    "meet_images",
    "naming",
    "raise_error",
    "refuse_other_sizes",
    "refuse_repeated_images",
    "refuse_unknown_categories",
    "segment_name",
    "shown",
]

Refuse = Callable[[int, str], None]  # index of the record, what is wrong with it


def convert_rows(
    rows: Sequence[Row], table: Mapping[str, Field], name: Callable[[int], str], refuse: Refuse | None = None
) -> None:
    """Convert the fields of records in place; ``name`` says which record it is, ``refuse`` raises by default."""
    refuse = refuse or raise_error
    wrong = [index for index, row in enumerate(rows) if type(row) is not dict] if set(map(type, rows)) - {dict} else []
    for index in wrong:
        refuse(index, f"{name(index)} must be an object with {', '.join(table)}, got {shown(rows[index])}.")
    kept = range(len(rows)) if not wrong else [index for index in range(len(rows)) if index not in set(wrong)]
    for key, field in table.items():
        column = [rows[index].get(key, MISSING) for index in kept]
        if column and not field.is_plain(column):
            _convert_column(rows, kept, key, field, name, refuse)


def _convert_column(
    rows: Sequence[Row], kept: Iterable[int], key: str, field: Field, name: Callable[[int], str], refuse: Refuse
) -> None:
    for index in kept:
        value = rows[index].get(key, MISSING)
        try:
            converted = _converted(value, field)
        except (ValueError, OverflowError):
            refuse(index, f"{name(index)}: {key} must be {field.expected}, got {shown(value)}.")
            continue
        if converted is REQUIRED:
            refuse(index, f"{name(index)} lacks {key!r}; it must be {field.expected}.")
        elif converted is MISSING:
            rows[index].pop(key, None)
        else:
            rows[index][key] = converted


def _converted(value: Any, field: Field) -> Any:
    if value is MISSING:
        return field.missing
    if value is None and field.null is not REQUIRED:
        return field.null
    return field.convert(value.item() if hasattr(value, "item") else value)  # Python callers may have numpy's numbers


def raise_error(index: int, text: str) -> None:
    """Refuse a record by ``ValueError(text)``."""
    raise ValueError(text)


def shown(value: Any) -> str:
    """A value as JSON writes it, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=repr).encode(errors="backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:60]} …"


def ids_shown(ids: Iterable[int]) -> str:
    """Ids for a message, the first twenty of many."""
    some = sorted(ids)
    return str(some) if len(some) <= 20 else f"[{', '.join(map(str, some[:20]))}, … {len(some)} in all]"


def naming(where: str, rows: Sequence[Any], kind: str, keys: Sequence[str]) -> Callable[[int], str]:
    """Names of records: their kind, their place in the list and what of these keys they have."""

    def name(index: int) -> str:
        row = rows[index]
        given = [f"{key} {shown(row[key])}" for key in keys if isinstance(row, dict) and key in row]
        return f"{where}: {kind} {index}" + (f" ({', '.join(given)})" if given else "")

    return name


def annotation_name(path: str, annotation: Row) -> str:
    """What a message calls the annotation of an image."""
    return f"{path}, annotation of image {annotation['image_id']!r} ({annotation['file_name']})"


def segment_name(where: str, segment: Any) -> str:
    """What a message calls a segment, which may be anything."""
    given = isinstance(segment, dict) and "id" in segment
    return f"{where}: segment {shown(segment['id'])}" if given else f"{where}: a segment"


# -- relations between records --------------------------------------------------------------------------------------


def image_key(image_id: Any) -> str:
    """What two ids of one image have in common: files may write ``7`` and ``"7"``."""
    return str(image_id)


def convert_categories(categories: Any, table: Mapping[str, Field], where: str) -> list[Row]:
    """Converted copies of a list of categories; ``ValueError`` if it is none, empty, wrong or has an id twice."""
    if isinstance(categories, (str, bytes, Mapping)) or not isinstance(categories, Iterable):
        raise ValueError(f"{where}: categories must be a list of objects, got {shown(categories)}.")
    rows = [dict(row) if isinstance(row, Mapping) else row for row in categories]
    convert_rows(rows, table, naming(where, rows, "category", ("id", "name")))
    ids = [row["id"] for row in rows]
    duplicates = sorted(i for i, times in Counter(ids).items() if times > 1)
    if not ids or duplicates:
        found = f"got duplicates: {duplicates}" if ids else "got no category"
        raise ValueError(f"{where}: Category ids must be unique, {found}. Each category needs an id of its own.")
    return rows


def convert_images(images: list[Row], path: str) -> dict[str, Any]:
    """Check the ids of a list of images; returns them by :func:`image_key`. Where one is text, all become text."""
    name = naming(path, images, "image", ("id", "file_name"))
    convert_rows(images, IMAGE, name)
    if len(set(map(type, (image["id"] for image in images)))) > 1:
        for image in images:
            image["id"] = str(image["id"])
    ids = {image_key(image["id"]): image["id"] for image in images}
    if len(ids) < len(images):
        twice = [key for key, times in Counter(image_key(image["id"]) for image in images).items() if times > 1]
        raise ValueError(f"{path} lists more than one image with id {', '.join(twice[:10])}. Keep one of each.")
    _refuse_repeated_files(images, path, "list of images")
    return ids


def join_images(annotations: list[Row], ids: Mapping[str, Any] | None, path: str) -> None:
    """Give annotations the ids of the images, each once."""
    if ids is not None:
        meet_images(annotations, ids, lambda index: annotation_name(path, annotations[index]))
    elif len({type(row["image_id"]) for row in annotations}) > 1:
        for row in annotations:
            row["image_id"] = str(row["image_id"])
    twice = [i for i, times in Counter(row["image_id"] for row in annotations).items() if times > 1]
    if twice:
        some = ", ".join(map(str, twice[:10]))
        raise ValueError(f"{path} annotates the same image more than once: {some}. Keep one annotation of each.")
    if ids is not None:
        _refuse_repeated_files(annotations, path, "list of annotations")


def _refuse_repeated_files(rows: Sequence[Row], path: str, where: str) -> None:
    twice = [name for name, times in Counter(row["file_name"] for row in rows).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: the {where} has file {twice[0]} more than once ({len(twice)} such files in all).")


def meet_images(annotations: list[Row], ids: Mapping[str, Any], name: Callable[[int], str]) -> None:
    """Give annotations the ids of their images, which are there by :func:`image_key`; ``ValueError`` if not."""
    for index, row in enumerate(annotations):
        key = image_key(row["image_id"])
        if key not in ids:
            raise ValueError(
                f"{name(index)}: there is no such image in the list of images ({shown(row['image_id'])}). Add it "
                "there, or remove the annotation."
            )
        row["image_id"] = ids[key]


def refuse_repeated_images(rows: list[Row], wrong: set[int], name: Callable[[int], str], refuse: Refuse) -> None:
    """Refuse records of an image that an earlier one has; those that are wrong already are passed over."""
    seen: set[str] = set()
    for index, row in enumerate(rows):
        if index in wrong:
            continue
        key = image_key(row["image_id"])
        if key in seen:
            refuse(index, f"{name(index)}: the JSON has it more than once; keep one")
        seen.add(key)


def convert_segments(
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
        return segment_name(name(owners[index]), rows[index])

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
    refuse_unknown_categories(
        [rows[i] for i in right],
        categories,
        lambda i: name_segment(right[i]),
        lambda i, text: refuse_segment(right[i], text),
    )


def refuse_unknown_categories(
    rows: Sequence[Row], categories: Collection[int], name: Callable[[int], str], refuse: Refuse
) -> None:
    """Refuse records whose ``category_id`` is none of ``categories``."""
    if {row["category_id"] for row in rows} <= set(categories):
        return
    for index, row in enumerate(rows):
        if row["category_id"] not in categories:
            wrong = f"{row['category_id']}, which is not in {ids_shown(categories)}. Give it one of these."
            refuse(index, f"{name(index)} has an unknown category: {wrong}")


def refuse_other_sizes(annotations: list[Row], sizes: Mapping[Any, list[int]], name: Callable[[int], str]) -> None:
    """Run-length encodings are of the whole image."""
    for index, row in enumerate(annotations):
        size, segmentation = sizes[row["image_id"]], row["segmentation"]
        if isinstance(segmentation, dict) and segmentation["size"] != size:
            raise ValueError(
                f"{name(index)}: segmentation has size {segmentation['size']} and its image {size} (height, width). "
                "Both must be the image's."
            )


def measured(segmentation: Any, size: list[int]) -> Row:
    """``area`` (px) and ``bbox`` of a segmentation, for annotations that have none."""
    encoded = mask_util.frPyObjects(segmentation, *size) if _is_uncompressed(segmentation) else segmentation
    rle = mask_util.merge(encoded) if isinstance(encoded, list) else encoded
    return {"area": int(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist()}


def _is_uncompressed(segmentation: Any) -> bool:
    return isinstance(segmentation, list) or isinstance(segmentation["counts"], list)
