"""Checks of the JSON alone, each of which finds all that is wrong; fields are converted where they are right."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...coco_fields import ANNOTATION, CATEGORY, IMAGE, SEGMENT, Field
from ...coco_json import image_key, load_json
from ...coco_records import convert_rows, naming, shown
from .findings import Findings

__all__ = ["Dataset", "Row", "content_text", "read_dataset"]


class Row(NamedTuple):
    """An image: its entry, its annotation, and those of its segments that are right in themselves."""

    image: dict[str, Any]
    annotation: dict[str, Any]
    segments: list[dict[str, Any]]


@dataclass
class Dataset:
    """A panoptic JSON as far as it is right: rows that are wrong have been found and left out.

    ``rows`` has each image that is annotated. ``content`` is the whole JSON, whose rows these are: what is mended in
    them is mended there.
    """

    content: dict[str, Any]
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def read_dataset(path: str, findings: Findings) -> Dataset | None:
    """Read and check a panoptic JSON; None if it is none at all."""
    try:
        content = load_json(path, "Panoptic JSON")
    except (ValueError, OSError) as error:
        findings.add("json", str(error))
        return None
    lists = ("images", "annotations", "categories")
    missing = [key for key in lists if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        findings.add("json", f"{path} is not in COCO panoptic format: it has no list of {', '.join(missing)}")
        return None
    dataset = Dataset(content)
    dataset.categories = _check_categories(path, content["categories"], findings)
    images = _check_images(path, content["images"], findings)
    annotations = _check_annotations(path, content["annotations"], images, findings)
    segments = _check_segments(annotations, dataset.categories, findings)
    dataset.rows = [Row(images[key], annotations[key], segments[key]) for key in annotations]
    for key in images.keys() - annotations.keys():
        findings.add("not annotated", f"image {key!r} ({images[key]['file_name']})")
    return dataset


def _converted(
    rows: list[Any], table: Mapping[str, Field], kind: str, name: Callable[[int], str], findings: Findings
) -> list[int]:
    """Convert rows in place; the indices of those that are right."""
    before = [copy.copy(row) for row in rows]
    wrong: set[int] = set()

    def refuse(index: int, text: str) -> None:
        wrong.add(index)
        findings.add(kind, text)

    convert_rows(rows, table, name, refuse)
    right = [index for index in range(len(rows)) if index not in wrong]
    for index in right:
        changed = [key for key in table if key in before[index] and _differs(before[index][key], rows[index].get(key))]
        if changed:
            was = ", ".join(f"{key} {shown(before[index][key])}" for key in changed)
            findings.add("written otherwise", f"{name(index)}: {was}")
    return right


def _differs(before: Any, after: Any) -> bool:
    return type(before) is not type(after) or bool(before != after)


def _check_categories(path: str, rows: list[Any], findings: Findings) -> dict[int, dict[str, Any]]:
    name = naming(path, rows, "category", ("id", "name"))
    right = [rows[i] for i in _converted(rows, CATEGORY, "category", name, findings)]
    if not right:
        findings.add("category", "the JSON lists no category that is right")
    for id_, times in Counter(row["id"] for row in right).items():
        if times > 1:
            findings.add("category", f"id {id_} is that of {times} categories")
    for text, times in Counter(row["name"] for row in right).items():
        if times > 1:
            findings.add("same name", f"{times} categories are called {text!r}")
    categories = {row["id"]: row for row in right}
    kinds = {row["isthing"] for row in right}
    if right and kinds == {0}:
        findings.add("no things", f"all {len(right)} categories have isthing 0")
    if right and kinds == {1}:
        findings.add("no stuff", f"all {len(right)} categories have isthing 1")
    return categories


def _check_images(path: str, rows: list[Any], findings: Findings) -> dict[str, dict[str, Any]]:
    """Image rows that are right, by :func:`image_key`."""
    name = naming(path, rows, "image", ("id", "file_name"))
    found: dict[str, dict[str, Any]] = {}
    for index in _converted(rows, IMAGE, "image row", name, findings):
        key = image_key(rows[index]["id"])
        if key in found:
            findings.add("image twice", name(index))
        found.setdefault(key, rows[index])
    return found


def _check_annotations(
    path: str, rows: list[Any], images: Mapping[str, Any], findings: Findings
) -> dict[str, dict[str, Any]]:
    name = naming(path, rows, "annotation", ("image_id", "file_name"))
    found: dict[str, dict[str, Any]] = {}
    for index in _converted(rows, ANNOTATION, "annotation", name, findings):
        key = image_key(rows[index]["image_id"])
        if key not in images:
            findings.add("no such image", name(index))
        elif key in found:
            findings.add("annotation twice", name(index))
        else:
            found[key] = rows[index]
    return found


def _check_segments(
    annotations: Mapping[str, dict[str, Any]], categories: Mapping[int, Mapping[str, Any]], findings: Findings
) -> dict[str, list[dict[str, Any]]]:
    """Check the segments of all annotations, and which categories have any; gives those that are right."""
    found = {}
    for key, annotation in annotations.items():
        where = f"image {annotation['image_id']!r} ({annotation['file_name']})"
        found[key] = _check_annotation(annotation["segments_info"], categories, where, findings)
    used = {row["category_id"] for rows in found.values() for row in rows}
    for id_ in categories.keys() - used:
        findings.add("unused category", f"{categories[id_]['name']!r} (id {id_})")
    return found


def _check_annotation(
    rows: list[Any], categories: Mapping[int, Mapping[str, Any]], where: str, findings: Findings
) -> list[dict[str, Any]]:
    name = naming(where, rows, "segment", ("id", "category_id"))
    right: dict[int, dict[str, Any]] = {}
    for index in _converted(rows, SEGMENT, "segment", name, findings):
        row = rows[index]
        if row["category_id"] not in categories:
            findings.add("unknown category", name(index))
        if row["id"] in right:
            findings.add("segment twice", name(index))
        right.setdefault(row["id"], row)
    known = [row for row in right.values() if row["category_id"] in categories]
    _check_kinds(known, categories, where, findings)
    return list(right.values())


def _check_kinds(
    segments: list[dict[str, Any]], categories: Mapping[int, Mapping[str, Any]], where: str, findings: Findings
) -> None:
    stuff = [row for row in segments if not categories[row["category_id"]]["isthing"]]
    for id_, times in Counter(row["category_id"] for row in stuff).items():
        if times > 1:
            findings.add("stuff twice", f"{where}: {times} segments are {categories[id_]['name']!r}")
    for row in stuff:
        if row["iscrowd"]:
            findings.add("stuff crowd", f"{where}, segment {row['id']} ({categories[row['category_id']]['name']!r})")
            row["iscrowd"] = 0


def content_text(content: dict[str, Any]) -> str:
    """The JSON as text."""
    return json.dumps(content, ensure_ascii=False)
