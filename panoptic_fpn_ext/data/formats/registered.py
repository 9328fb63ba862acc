"""What detectron2's catalogs hold, its ``*_separated`` datasets among them, and COCO panoptic datasets themselves."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...coco_json import read_panoptic as read_panoptic_json
from ...panoptic_png import read_panoptic_png
from .coco import region_of_annotation, unlisted_category
from .files import ImageIndex, read_ids, short_names
from .id_maps import one_channel
from .regions import MapRow, Region, Source, SourceImage, regions_of_ids

__all__ = ["read_panoptic", "read_registered"]


def read_registered(name: str, module: str | None = None) -> Source:
    """A dataset of detectron2's catalogs, ``*_separated`` ones among them.

    It has ``annotations``, ``sem_seg_file_name`` or both.

    Args:
        name: what the catalogs call it, such as coco_2017_val_panoptic_separated.
        module: imported first, so that it can register the dataset.

    Raises:
        ValueError: there is no such dataset, or its metadata lack the names of its classes.
    """
    if module is not None:
        importlib.import_module(module)
    if name not in DatasetCatalog:
        raise ValueError(f"detectron2's catalogs have no dataset {name!r}; --module MODULE imports what registers it.")
    dicts, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    things = _class_ids(metadata, "thing")
    every = _class_ids(metadata, "stuff", max(things.values(), default=0) + 1)
    stuff = {i: c for i, c in every.items() if metadata.stuff_classes[i] != "things"}
    void = {int(metadata.get("ignore_label", 255)), *(every.keys() - stuff.keys())}
    if not things and not stuff:
        raise ValueError(f"The metadata of {name!r} have neither thing_classes nor stuff_classes.")
    categories = [_row(c, metadata.thing_classes[i], True) for i, c in things.items()]
    listed = {row["id"] for row in categories}
    categories += [_row(c, metadata.stuff_classes[i], False) for i, c in stuff.items() if c not in listed]
    result_names = short_names([str(d["file_name"]) for d in dicts])
    images = [_registered_image(d, n, things, stuff, void) for d, n in zip(dicts, result_names, strict=True)]
    files = filter(None, (metadata.get(key) for key in ("json_file", "panoptic_json", "instances_json")))
    return Source(categories, images, [str(path) for path in files])


def _class_ids(metadata: Any, kind: str, first: int = 1) -> dict[int, int]:
    """Dataset id of each contiguous id; numbered where the metadata have no dataset ids."""
    names = metadata.get(f"{kind}_classes") or []
    given = metadata.get(f"{kind}_dataset_id_to_contiguous_id")
    if given:
        return {contiguous: dataset_id for dataset_id, contiguous in given.items()}
    return {i: i + first for i in range(len(names))}


def _row(category: int, name: str, isthing: bool) -> dict[str, Any]:
    return {"id": category, "name": name, "isthing": int(isthing)}


def _registered_image(
    row: Mapping[str, Any],
    result_name: str,
    things: Mapping[int, int],
    stuff: Mapping[int, int],
    void: Collection[int],
) -> SourceImage:
    regions = _RegisteredRegions(row.get("annotations") or (), row.get("sem_seg_file_name"), things, stuff, void)
    size = (int(row["height"]), int(row["width"])) if row.get("height") else None
    path = str(row["file_name"])
    files = tuple(map(str, filter(None, [row.get("sem_seg_file_name")])))
    return SourceImage(path, result_name, regions, size, image_id=row.get("image_id"), files=files)


@dataclass(frozen=True)
class _RegisteredRegions:
    """Semantic labels below, instances on top; ids are contiguous in both. Pixels of a thing below are a crowd."""

    annotations: Sequence[Mapping[str, Any]]
    map_file: str | None
    things: Mapping[int, int]
    stuff: Mapping[int, int]
    void: Collection[int]

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        regions: list[Region] = []
        dropped: Counter[str] = Counter()
        if self.map_file is not None:
            ids = one_channel(read_ids(self.map_file))
            if ids.shape != size:
                raise ValueError(f"{self.map_file} has (height, width) {ids.shape}, the image {size}")
            below, unlisted = regions_of_ids(ids, self._stuff_row)
            regions += [replace(r, z=float("-inf")) for r in below]
            dropped.update(unlisted)
        for row in self.annotations:
            if row["category_id"] not in self.things:
                dropped[unlisted_category(row["category_id"])] += 1
                continue
            dataset_row = {**row, "category_id": self.things[row["category_id"]]}
            region = region_of_annotation(_with_rle(dataset_row), size, set(self.things.values()), dropped)
            regions += [] if region is None else [region]
        return regions, dropped

    def _stuff_row(self, value: int) -> MapRow:
        if value in self.void:
            return None
        return (self.stuff[value], True) if value in self.stuff else f"label {value}"


def _with_rle(row: dict[str, Any]) -> dict[str, Any]:
    """detectron2 allows a mask as an array too."""
    mask = row.get("segmentation")
    if isinstance(mask, np.ndarray):
        flat: npt.NDArray[np.bool_] = np.concatenate([[False], mask.astype(bool).T.reshape(-1), [True]])
        ends = np.flatnonzero(flat[1:] != flat[:-1])
        counts = np.diff(np.concatenate([[0], ends])) if len(ends) else np.array([mask.size])
        row["segmentation"] = {"counts": _whole(counts.tolist(), mask.size), "size": list(mask.shape)}
    return row


def _whole(counts: list[int], total: int) -> list[int]:
    """Runs that add up to the whole mask: what follows the last change is a run too."""
    rest = total - sum(counts)
    return [*counts, rest] if rest else counts


def read_panoptic(annotations: str, pngs: str, images: str) -> Source:
    """COCO panoptic format already: to split it, or to change its kinds.

    Args:
        annotations: the JSON.
        pngs: folder of its panoptic PNGs.
        images: folder of its images.

    Raises:
        ValueError: the JSON is not in COCO panoptic format.
    """
    content = read_panoptic_json(annotations)
    categories = [{k: row[k] for k in ("id", "name", "isthing", "color") if k in row} for row in content["categories"]]
    rows = {row["image_id"]: row for row in content["annotations"]}
    index = ImageIndex([images])
    found = []
    for row in content["images"]:
        name, annotation = str(row["file_name"]), rows.get(row["id"])
        if annotation is None:
            found.append(SourceImage(name, name, problem="it has no annotation"))
            continue
        png = os.path.join(pngs, annotation["file_name"])
        regions = partial(_panoptic_regions, png, annotation["segments_info"])
        try:
            found.append(SourceImage(index.find(name), name, regions, image_id=row["id"], files=(png,)))
        except ValueError as error:
            found.append(SourceImage(name, name, problem=str(error)))
    return Source(categories, found, [annotations])


def _panoptic_regions(
    png: str, segments: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> tuple[list[Region], Mapping[str, int]]:
    ids = read_panoptic_png(png)
    if ids.shape != size:
        raise ValueError(f"{png} has (height, width) {ids.shape}, the image {size}")
    rows: dict[int, MapRow] = {s["id"]: (s["category_id"], bool(s["iscrowd"])) for s in segments}
    _refuse_other_areas(png, ids, segments)
    return regions_of_ids(ids, lambda i: rows.get(i, f"id {i}" if i else None))


def _refuse_other_areas(png: str, ids: npt.NDArray[np.int32], segments: Sequence[Mapping[str, Any]]) -> None:
    """Maps of two images that were exchanged would be converted without a word, and get areas that fit."""
    present, counts = np.unique(ids, return_counts=True)
    areas = dict(zip(present.tolist(), counts.tolist(), strict=True))
    for segment in segments:
        area = areas.get(segment["id"], 0)
        if segment.get("area", area) != area or not area:
            raise ValueError(
                f"{png}: segment {segment['id']} has {area} px, the JSON says {segment.get('area', 'nothing')}: is it "
                "the map of another image? python -m panoptic_fpn_ext.data.check says what is wrong, and mends areas"
            )
