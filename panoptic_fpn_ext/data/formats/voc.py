"""PASCAL VOC, and what tools export in its layout."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from .files import read_lines, stem
from .id_maps import is_void, paired
from .regions import MapRow, Region, Source, regions_of_ids

__all__ = ["read_voc"]


def read_voc(root: str, images: str | None = None) -> Source:
    """PASCAL VOC's segmentation, and what tools export like it.

    ``SegmentationClass`` and ``SegmentationObject`` with VOC's 20 classes, or with those of a ``labelmap.txt``, by
    colour, as CVAT ("Segmentation mask" too) and datumaro write it; outlines (255) are void.

    Args:
        root: folder of ``JPEGImages``, ``SegmentationClass`` and ``SegmentationObject``.
        images: folder of the images, if it is not ``JPEGImages``.

    Raises:
        ValueError: the folders are not there.
    """
    table = os.path.join(root, "labelmap.txt")
    colors = _labelmap(table) if os.path.isfile(table) else {name: _voc_color(i) for i, name in enumerate(_VOC)}
    names = [name for name in colors if not is_void(name)]
    ids = {name: i for i, name in enumerate(names, start=1)}
    categories = [{"id": ids[name], "name": name, "color": list(colors[name])} for name in names]
    by_color = {_packed(colors[name]): ids[name] for name in names}
    void = {_packed(color) for name, color in colors.items() if is_void(name)} | {0, _OUTLINE} - by_color.keys()
    regions = partial(_VocRegions, by_color=by_color, void=void)
    listed = paired(images or f"{root}/JPEGImages", f"{root}/SegmentationClass", "", "", None, regions)
    annotated = [image for image in listed if image.problem is None]
    splits = _voc_splits(root)
    found = [
        replace(i, split=splits.get(os.path.splitext(i.name)[0]), files=(*i.files, *map(_objects_file, i.files)))
        for i in annotated
    ]
    alone = [image for image in listed if image.problem is not None]
    notes = [f"{len(alone)} images or maps without the other, such as {i.path}: {i.problem}" for i in alone[:1]]
    notes += _list_notes(splits.keys(), {os.path.splitext(image.name)[0] for image in annotated})
    return Source(categories, found, [table] if os.path.isfile(table) else [], notes=notes)


def _list_notes(listed: Collection[str], annotated: Collection[str]) -> list[str]:
    """What is in the lists and not annotated, and the other way round."""
    if not listed:
        return []
    gone, more = sorted(set(listed) - set(annotated)), sorted(set(annotated) - set(listed))
    notes = [f"{len(gone)} names in ImageSets/Segmentation without annotation, such as {gone[0]!r}"] if gone else []
    if more:
        notes.append(
            f"nothing, but {len(more)} images are in none of its lists, so in a part of their own: {more[0]!r}"
        )
    return notes


_VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def _voc_color(index: int) -> tuple[int, int, int]:
    bits = [[(index >> (3 * k + c)) & 1 for k in range(8)] for c in range(3)]
    red, green, blue = (sum(bit << (7 - k) for k, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


def _packed(color: Sequence[int]) -> int:
    return int(color[0]) * 65536 + int(color[1]) * 256 + int(color[2])


def _unpacked(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 255, color & 255


_OUTLINE = _packed((224, 224, 192))


def _labelmap(path: str) -> dict[str, tuple[int, int, int]]:
    """``name:R,G,B:parts:actions`` a line; VOC's own colours where none has one, as datumaro writes it."""
    colors = {}
    rows = [line.split(":") for line in read_lines(path) if not line.startswith("#")]
    if all(len(row) > 1 and not row[1].strip() for row in rows):
        return {row[0].strip(): _voc_color(i) for i, row in enumerate(rows)}
    for row in rows:
        values = row[1].split(",") if len(row) > 1 else []
        if len(values) != 3 or not all(v.strip().isdigit() for v in values):
            raise ValueError(f"{path}: a line name:R,G,B:parts:actions is needed, got {':'.join(row)!r}.")
        colors[row[0].strip()] = (int(values[0]), int(values[1]), int(values[2]))
    twice = sorted(name for name, color in colors.items() if [*colors.values()].count(color) > 1)
    if twice:
        raise ValueError(
            f"{path}: {', '.join(twice)} share a colour with another label, so PNGs cannot tell them apart."
        )
    return colors


def _voc_splits(root: str) -> dict[str, str]:
    """Part of each image by its stem, from the lists in ``ImageSets/Segmentation``, of which trainval is none."""
    folder = os.path.join(root, "ImageSets", "Segmentation")
    lists = [f for f in os.listdir(folder) if f.endswith(".txt")] if os.path.isdir(folder) else []
    splits: dict[str, str] = {}
    for name in sorted(lists, key=lambda f: ("train" in f.lower(), f)):  # an image in two of them is of train
        if name.lower() != "trainval.txt":
            splits |= {line.strip('"'): stem(name) for line in read_lines(os.path.join(folder, name))}
    return splits


def _objects_file(classes_file: str) -> str:
    before, _, after = classes_file.rpartition("SegmentationClass")
    return f"{before}SegmentationObject{after}"


@dataclass(frozen=True)
class _VocRegions:
    """Classes by colour, or by index where the PNG has a palette; objects by whatever value their PNG has."""

    map_file: str
    by_color: Mapping[int, int]
    void: Collection[int]

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        keys = _palette_pixels(self.map_file, size) * 2**24
        objects_file = _objects_file(self.map_file)
        if not os.path.isfile(objects_file):
            regions, dropped = regions_of_ids(keys, self._row)
            return regions, {**dropped, "image without SegmentationObject, so its things are crowds": 1}
        return regions_of_ids(keys + _palette_pixels(objects_file, size), self._row)

    def _row(self, key: int) -> MapRow:
        color, number = divmod(key, 2**24)
        if color in self.by_color and number != _OUTLINE:
            return self.by_color[color], number == 0
        return None if color in self.void or number == _OUTLINE else f"colour {_unpacked(color)}"


def _palette_pixels(path: str, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Colours (H, W) as one number each, of a palette or RGB PNG."""
    try:
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    except Exception as error:  # Pillow's decoders have types of their own
        raise ValueError(f"{path} cannot be read ({error})") from error
    if rgb.shape[:2] != size:
        raise ValueError(f"{path} has (height, width) {rgb.shape[:2]}, the image {size}")
    return rgb[..., 0] * 65536 + rgb[..., 1] * 256 + rgb[..., 2]
