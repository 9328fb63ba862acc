"""COCO instances JSON: polygons, run-length masks, crowds; as Roboflow, CVAT, FiftyOne and others export it."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...coco_fields import IMAGE, INSTANCE, INSTANCE_CATEGORY
from ...coco_json import image_key, load_json
from ...coco_records import convert_rows, naming
from .files import ImageIndex, read_ids, read_table
from .id_maps import is_void
from .regions import (
    BEYOND,
    MapRow,
    Region,
    Source,
    SourceImage,
    is_beyond,
    mask_of_polygons,
    mask_of_rle,
    regions_of_ids,
)
from .splits import join_parts

__all__ = ["read_coco", "region_of_annotation", "unlisted_category"]

_VOID_VALUES = (0, 255)
_ANNOTATION = {key: INSTANCE[key] for key in ("image_id", "category_id", "iscrowd")}


def read_coco(
    annotations: str, images: str | None = None, stuff_maps: str | None = None, stuff_labels: str | None = None
) -> Source:
    """COCO instances JSON: polygons, run-length masks, crowds.

    Args:
        annotations: the JSON, or a folder with one JSON a part of the dataset, as Roboflow and CVAT leave it.
        images: folder of the images; beside the JSON, and where the tools put them, if not given.
        stuff_maps: folder of PNGs whose pixels are category ids (0 and 255 are void), one an image, which lie below all
            annotations; pixels of a thing there are a crowd.
        stuff_labels: table of the ids in these PNGs that the JSON does not list, such as COCO-stuff's labels.txt.

    Raises:
        ValueError: the JSON is not COCO's.
    """
    if os.path.isdir(annotations):
        parts = _parts(annotations).items()
        return join_parts({name: read_coco(path, images, stuff_maps, stuff_labels) for name, path in parts})
    content = _read(annotations)
    index = ImageIndex([images] if images else _usual_folders(annotations))
    of_image: dict[str, list[Mapping[str, Any]]] = {}
    for row in content["annotations"]:
        of_image.setdefault(image_key(row["image_id"]), []).append(row)
    categories, notes = _categories(content)
    listed = {c["id"] for c in categories}
    table = [row for row in (read_table(stuff_labels) if stuff_labels else ()) if row["id"] not in listed]
    of_void = {row["id"] for row in table if is_void(row["name"]) or row["name"] == "other"}
    categories += [{**row, "isthing": 0} for row in table if row["id"] not in of_void]
    known = {c["id"] for c in categories}
    row_of = partial(_stuff_row, known=known, void={*_VOID_VALUES, *of_void})
    maps = ImageIndex([stuff_maps]) if stuff_maps else None
    found = []
    for row in content["images"]:
        rows = of_image.pop(image_key(row["id"]), [])
        found.append(_image(row, index, maps, partial(_regions, rows=rows, known=known, row_of=row_of)))
    if of_image:
        count = sum(len(rows) for rows in of_image.values())
        notes.append(f"{count} annotations of image ids that the JSON does not list: {list(of_image)[:5]}")
    files = [path for path in (annotations, stuff_labels) if path]
    return Source(categories, found, files, things_by_default=True, notes=notes)


def _parts(folder: str) -> dict[str, str]:
    """JSONs of a folder by part: ``PART/_annotations.coco.json``, ``annotations/instances_PART.json`` and the like."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*.json"), recursive=True)):
        base, name = os.path.split(path)
        if name == "_annotations.coco.json":
            found[os.path.basename(os.path.abspath(base))] = path
        elif name.startswith("instances") or (name == "labels.json" and os.path.isdir(os.path.join(base, "data"))):
            found[os.path.splitext(name)[0].partition("_")[2] or os.path.basename(os.path.abspath(base))] = path
    if not found:
        raise ValueError(
            f"{folder} has neither _annotations.coco.json nor annotations/instances_*.json: name the JSON itself."
        )
    return found


def _read(path: str) -> dict[str, Any]:
    """The JSON, with those fields converted that say what belongs to what; masks are looked at one by one later."""
    content = load_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} is no COCO instances JSON: it has no list of {key}.")
    if any(isinstance(row, Mapping) and "segments_info" in row for row in content["annotations"][:1]):
        raise ValueError(f"{path} is in COCO panoptic format: convert it by 'panoptic {path} PNGS IMAGES'.")
    tables = {"images": IMAGE, "annotations": _ANNOTATION, "categories": INSTANCE_CATEGORY}
    for key, table in tables.items():
        convert_rows(content[key], table, naming(path, content[key], f"entry of {key}", ("id", "file_name", "name")))
    _refuse_repeated(content["images"], path)
    return content


def _refuse_repeated(images: Sequence[Mapping[str, Any]], path: str) -> None:
    """``ValueError`` for ids or files of images that are listed more than once, with what to do."""
    files: dict[str, set[str]] = {}
    for row in images:
        files.setdefault(image_key(row["id"]), set()).add(row["file_name"])
    for key, names in files.items():
        if len(names) > 1:
            raise ValueError(
                f"{path} gives id {key} to several images ({', '.join(sorted(names)[:3])}), so nothing says whose its "
                "annotations are. Give each image an id of its own, in its annotations too."
            )
    times = Counter(row["file_name"] for row in images)
    repeated = [name for name, count in times.items() if count > 1]
    if repeated:
        ids = dict.fromkeys(image_key(row["id"]) for row in images if row["file_name"] == repeated[0])
        raise ValueError(
            f"{path} lists image {repeated[0]} more than once (id {', '.join(ids)}; {len(repeated)} such images in "
            "all). Keep one entry of each, and give its id to all annotations of that image."
        )


def _usual_folders(annotations: str) -> list[str]:
    """Where the images of a JSON lie: beside it (Roboflow), in ``data`` (FiftyOne), in ``../images`` (CVAT)."""
    folder = os.path.dirname(os.path.abspath(annotations))
    parent = os.path.dirname(folder)
    name = os.path.splitext(os.path.basename(annotations))[0].split("_", 1)[-1]  # instances_NAME.json
    inside = [os.path.join(folder, sub) for sub in ("images", "data", name)]
    outside = [os.path.join(parent, sub) for sub in (os.path.join("images", name), "images", name, "data")]
    return [*inside, *outside, folder]


def _categories(content: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The categories, less a root that only groups the others, as Roboflow writes it."""
    used = {row["category_id"] for row in content["annotations"]}
    parents = {row.get("supercategory") for row in content["categories"]}
    rows, notes = [], []
    for row in content["categories"]:
        name, id_ = row["name"], row["id"]
        if id_ not in used and name in parents and row.get("supercategory") in (None, "", "none"):
            notes.append(f"category {name!r} (id {id_}): it only groups the others, no annotation has it")
            continue
        rows.append({"id": id_, "name": name} | {k: row[k] for k in ("isthing", "color", "supercategory") if k in row})
    return rows, notes


def _image(
    row: Mapping[str, Any],
    index: ImageIndex,
    maps: ImageIndex | None,
    read: Callable[..., Any],
) -> SourceImage:
    name, size = row["file_name"], (row["height"], row["width"])
    try:
        path = index.find(name)
    except ValueError as error:
        return SourceImage(name, _inside(name), problem=str(error))
    stuff_map = _map_of(name, maps)
    missing = maps is not None and stuff_map is None
    regions = partial(read, stuff_map=stuff_map, map_is_missing=missing)
    files = () if stuff_map is None else (stuff_map,)
    return SourceImage(path, _inside(name), regions, size, image_id=row["id"], files=files)


def _inside(name: str) -> str:
    """A name that cannot lead out of a folder."""
    return name.replace("\\", "/").lstrip("/")


def _map_of(name: str, maps: ImageIndex | None) -> str | None:
    if maps is None:
        return None
    try:
        return maps.find(os.path.splitext(name)[0] + ".png")
    except ValueError:
        return None


def _regions(
    size: tuple[int, int],
    rows: Sequence[Mapping[str, Any]],
    known: set[int],
    row_of: Callable[[int], MapRow],
    stuff_map: str | None,
    map_is_missing: bool,
) -> tuple[list[Region], Mapping[str, int]]:
    """The regions of an image; z puts the stuff map below everything."""
    dropped: Counter[str] = Counter({"all stuff of an image, for which there is no map": 1} if map_is_missing else {})
    regions = []
    if stuff_map is not None:
        ids = read_ids(stuff_map)
        if ids.shape != size:
            raise ValueError(f"{stuff_map} has (height, width) {ids.shape}, the image {size}")
        below, unlisted = regions_of_ids(ids, row_of)
        regions += [replace(r, z=float("-inf")) for r in below]
        dropped.update(unlisted)
    for row in rows:
        region = region_of_annotation(row, size, known, dropped)
        if region is not None:
            regions.append(region)
    return regions, dropped


def _stuff_row(value: int, known: set[int], void: set[int]) -> MapRow:
    if value in void:
        return None
    return (value, True) if value in known else f"id {value}"


def unlisted_category(category: Any) -> str:
    """Why annotations of a category are dropped that the categories of their dataset do not have."""
    return f"annotation of category {category!r}, which is not in the list of categories"


def region_of_annotation(
    row: Mapping[str, Any], size: tuple[int, int], known: set[int], dropped: Counter[str]
) -> Region | None:
    """The region of a COCO instance annotation, None where it was dropped; `dropped` counts why, as of a category that
    is not `known`.

    Raises:
        ValueError: a broken mask.
    """
    category, segmentation = row.get("category_id"), row.get("segmentation")
    if category not in known:
        dropped[unlisted_category(category)] += 1
        return None
    if not segmentation:
        dropped["annotation without a mask (a box only)"] += 1
        return None
    try:
        if isinstance(segmentation, Mapping):
            mask = mask_of_rle(segmentation, size)
        else:
            polygons = segmentation if isinstance(segmentation[0], Sequence) else [segmentation]
            usable = [p for p in polygons if len(p) >= 6]
            dropped["polygon of fewer than three points"] += len(polygons) - len(usable)
            mask = mask_of_polygons(usable, size)
            dropped[BEYOND] += any(is_beyond(np.reshape(p, (-1, 2)), size) for p in usable)
    except (ValueError, TypeError) as error:
        raise ValueError(f"annotation {row.get('id')}: {error}") from error
    if mask is None:
        dropped["annotation without a pixel in the image"] += 1
        return None
    return Region(int(category), mask, iscrowd=bool(row.get("iscrowd")))
