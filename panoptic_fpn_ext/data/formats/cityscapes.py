"""Cityscapes, what is laid out like it, and KITTI-STEP, which has its labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ... import cityscapes_labels
from .files import read_ids
from .id_maps import BACKGROUND, one_channel, paired, read_encoded, split_folders
from .regions import Region, Source, SourceImage, regions_of_ids

__all__ = ["read_cityscapes", "read_kitti_step"]


def read_cityscapes(root: str) -> Source:
    """Cityscapes as downloaded, or a dataset that is laid out like it: ``leftImg8bit`` and ``gtFine`` with
    ``instanceIds`` PNGs; a ``label_colors.txt`` as CVAT writes it names other labels.

    Raises:
        ValueError: the folders are not there.
    """
    image_root = next(
        (f for f in ("leftImg8bit", "imgsFine/leftImg8bit") if os.path.isdir(f"{root}/{f}")), "leftImg8bit"
    )
    categories: list[dict[str, Any]] = cityscapes_labels.categories()
    table = os.path.join(root, "label_colors.txt")
    if os.path.isfile(table):
        categories = _label_colors(table)
    known = {c["id"]: c["id"] for c in categories}
    images: list[SourceImage] = []
    for split, folder in split_folders(root, {s: s for s in ("train", "val", "test", "default")}, "gtFine").items():
        images += paired(
            os.path.join(root, image_root, folder),
            os.path.join(root, "gtFine", folder),
            "_leftImg8bit.png",
            "_gtFine_instanceIds.png",
            split,
            partial(_CityscapesRegions, known=known),
        )
    return Source(categories, images, [table] if os.path.isfile(table) else [], things_by_default=False)


@dataclass(frozen=True)
class _CityscapesRegions:
    """Below 1000 an id is a label's (stuff, or a group of things), from it on 1000 times a label's and a number."""

    map_file: str
    known: Mapping[int, int]

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        ids = one_channel(read_ids(self.map_file))
        if ids.shape != size:
            raise ValueError(f"{self.map_file} has (height, width) {ids.shape}, the image {size}")
        return regions_of_ids(ids, self._row), {}

    def _row(self, key: int) -> tuple[int, bool] | None:
        category = self.known.get(cityscapes_labels.label_of(key))
        return None if category is None else (category, key < cityscapes_labels.FIRST_INSTANCE)


def _label_colors(path: str) -> list[dict[str, Any]]:
    """CVAT's table: ``R G B name`` a line; ids are the lines' numbers, from 0, background is void."""
    with open(path, encoding="utf-8-sig") as f:
        rows = [line.split(maxsplit=3) for line in f if line.strip() and not line.startswith("#")]
    named = enumerate((row[3].strip(), [int(v) for v in row[:3]]) for row in rows)
    return [{"id": i, "name": name, "color": color} for i, (name, color) in named if name not in BACKGROUND]


def read_kitti_step(images: str, maps: str) -> Source:
    """KITTI-STEP: ``images`` and ``panoptic_maps`` with the same sequences; red is Cityscapes' train id, 256 green +
    blue the instance; cars and persons are things.
    """
    rows = cityscapes_labels.categories()
    categories = [{**row, "id": i, "isthing": int(row["name"] in ("car", "person"))} for i, row in enumerate(rows)]
    return read_encoded(images, maps, categories, "red,256*green+blue")
