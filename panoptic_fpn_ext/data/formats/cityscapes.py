"""Cityscapes, what is laid out like it, and KITTI and KITTI-STEP, which have its labels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import cityscapes_labels
from .files import read_ids, read_lines
from .id_maps import MapRegions, is_void, one_channel, paired, read_encoded
from .regions import MapRow, Region, Source, SourceImage, regions_of_ids
from .splits import join_parts, part_name

__all__ = ["read_cityscapes", "read_kitti", "read_kitti_step"]


def read_cityscapes(root: str) -> Source:
    """Cityscapes as downloaded, and what is laid out like it.

    ``leftImg8bit`` and ``gtFine`` with ``instanceIds`` PNGs; a ``label_colors.txt`` as CVAT writes it names other
    labels.

    Args:
        root: folder of ``leftImg8bit`` (or ``imgsFine/leftImg8bit``) and ``gtFine``.

    Raises:
        ValueError: the folders are not there.
    """
    image_root = next(
        (f for f in ("leftImg8bit", "imgsFine/leftImg8bit") if os.path.isdir(f"{root}/{f}")), "leftImg8bit"
    )
    categories: list[dict[str, Any]] = cityscapes_labels.categories()
    void: Collection[int] = cityscapes_labels.IGNORED
    table = os.path.join(root, "label_colors.txt")
    if os.path.isfile(table):
        categories, void = read_label_colors(table)
        if not void:  # datumaro leaves out its background, which is 0
            categories, void = [{**c, "id": c["id"] + 1} for c in categories], {0}
    known = {c["id"]: c["id"] for c in categories}
    images: list[SourceImage] = []
    for folder in _folders_of(root, "gtFine"):
        images += paired(
            os.path.join(root, image_root, folder),
            os.path.join(root, "gtFine", folder),
            "_leftImg8bit",
            "_gtFine_instanceIds",
            part_name(folder),
            partial(_CityscapesRegions, known=known, void=void),
        )
    return Source(categories, images, [table] if os.path.isfile(table) else [], things_by_default=False)


def _folders_of(root: str, what: str) -> list[str]:
    """The parts of a dataset, folders below ``root/what``."""
    below = os.path.join(root, what)
    names = sorted(os.listdir(below)) if os.path.isdir(below) else []
    found = [name for name in names if os.path.isdir(os.path.join(below, name))]
    if not found:
        raise ValueError(f"There is no folder {below} with train, val or other parts: is {root!r} the dataset's root?")
    return found


@dataclass(frozen=True)
class _CityscapesRegions:
    """Below 1000 an id is a label's (stuff, or a group of things), from it on 1000 times a label's and a number."""

    map_file: str
    known: Mapping[int, int]
    void: Collection[int]

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        ids = one_channel(read_ids(self.map_file))
        if ids.shape != size:
            raise ValueError(f"{self.map_file} has (height, width) {ids.shape}, the image {size}")
        return regions_of_ids(ids, self._row)

    def _row(self, key: int) -> MapRow:
        label = cityscapes_labels.label_of(key)
        if label in self.known:
            return self.known[label], key < cityscapes_labels.FIRST_INSTANCE
        return None if label in self.void else f"label {label}"


def read_label_colors(path: str) -> tuple[list[dict[str, Any]], set[int]]:
    """CVAT's and datumaro's table: ``R G B name`` a line, or names alone; ids are the lines' numbers, from 0.

    Returns:
        The categories, and the ids of those that are void, such as background.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    plain = not any(re.match(r"\d+\s+\d+\s+\d+\s", line) for line in lines)
    rows = [["0", "0", "0", line] if plain else line.split(maxsplit=3) for line in lines]
    bad = [line for line, row in zip(lines, rows, strict=True) if len(row) < 4 or not "".join(row[:3]).isdigit()]
    if bad or not rows:
        raise ValueError(f"{path}: lines R G B name are needed, got {bad[:3]}.")
    twice = [name for name, times in Counter(row[3] for row in rows).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: ids are the lines' numbers, so no label may have two lines, as {twice[:3]} have.")
    labels: list[dict[str, Any]] = [
        {"id": i, "name": row[3]} | ({} if plain else {"color": [int(v) for v in row[:3]]})
        for i, row in enumerate(rows)
    ]
    void = {row["id"] for row in labels if is_void(row["name"])}
    return [row for row in labels if row["id"] not in void], void


def read_kitti_step(images: str, maps: str) -> Source:
    """KITTI-STEP: images and panoptic maps of the same sequences.

    Red is Cityscapes' train id, 256 green + blue the instance; cars and persons are things.

    Args:
        images: folder of the sequences, or of ``train`` and ``val`` with them.
        maps: ``panoptic_maps``, which has the same folders.

    Raises:
        ValueError: the folders are not there.
    """
    rows = cityscapes_labels.categories()
    categories = [{**row, "id": i, "isthing": int(row["name"] in ("car", "person"))} for i, row in enumerate(rows)]
    parts = [part for part in ("train", "val") if os.path.isdir(os.path.join(maps, part))]
    folders = {part: (os.path.join(images, part), os.path.join(maps, part)) for part in parts}
    read = partial(read_encoded, labels=categories, encoding="red,256*green+blue")
    return join_parts({part: read(*both) for part, both in (folders or {"": (images, maps)}).items()})


def read_kitti(root: str) -> Source:
    """KITTI's semantic segmentation, as downloaded or of CVAT.

    ``training`` or other parts with ``image_2`` and ``instance``, whose pixels are 256 times the label and the
    instance; labels are those of Cityscapes or of a ``label_colors.txt``, as CVAT and datumaro write it.

    Args:
        root: folder of ``training`` or other parts.

    Raises:
        ValueError: the folders are not there.
    """
    categories: list[dict[str, Any]] = cityscapes_labels.categories()
    void: Collection[int] = cityscapes_labels.IGNORED
    table = os.path.join(root, "label_colors.txt")
    if os.path.isfile(table):
        categories, void = read_label_colors(table)
    known = {c["id"]: c["id"] for c in categories}
    parts = sorted(f for f in os.listdir(root) if os.path.isdir(os.path.join(root, f, "instance")))
    if not parts:
        raise ValueError(f"There is no folder {root}/*/instance: CVAT writes it for masks and polygons, not for boxes.")
    regions = partial(MapRegions, encoding="value/256", known=known, void=void)
    images: list[SourceImage] = []
    for part in parts:
        base = os.path.join(root, part)
        images += paired(f"{base}/image_2", f"{base}/instance", "", "", part_name(part), regions)
    return Source(categories, images, [table] if os.path.isfile(table) else [], things_by_default=False)
