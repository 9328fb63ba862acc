"""PNGs of ids, one an image: how pixels say them, and how images and maps find each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import images_below, read_ids, read_table
from .regions import MapRow, Region, Source, SourceImage, regions_of_ids

__all__ = [
    "ENCODINGS",
    "MapRegions",
    "is_void",
    "one_channel",
    "paired",
    "read_coco_stuff",
    "read_encoded",
    "read_semantic_instance",
    "split_folders",
]


_LOOKED_AT = 10  # files
_INSTANCES = 2**32  # more than an int32 holds; a key is the semantic id times this, and the instance id

Ids = npt.NDArray[np.int32]


def _plain(pixels: Ids) -> tuple[Ids, Ids | None]:
    return one_channel(pixels), None


def one_channel(pixels: Ids) -> Ids:
    """Ids (H, W); ``ValueError`` for colours."""
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError("it has colours, where one channel of ids is needed")
        return pixels[..., 0].astype(np.int32)
    return pixels


def _divided(pixels: Ids, by: int) -> tuple[Ids, Ids | None]:
    ids = one_channel(pixels)
    return ids // by, ids % by


def _channels(pixels: Ids, high: int | None, low: int) -> tuple[Ids, Ids | None]:
    """Semantic id in the red channel, the instance's in one or two others."""
    if pixels.ndim != 3:
        raise ValueError("it has one channel, where red, green and blue are needed")
    wide = pixels.astype(np.int32)
    return wide[..., 0], wide[..., low] + (256 * wide[..., high] if high is not None else 0)


ENCODINGS: Mapping[str, Callable[[Ids], tuple[Ids, Ids | None]]] = {
    "semantic": _plain,
    "value/256": partial(_divided, by=256),
    "value/1000": partial(_divided, by=1000),
    "red,green": partial(_channels, high=None, low=1),
    "red,blue": partial(_channels, high=None, low=2),
    "red,256*green+blue": partial(_channels, high=1, low=2),
}
"""How pixels say a semantic and an instance id, by the name that the command line takes."""


@dataclass(frozen=True)
class MapRegions:
    """Reads the regions of an image from its PNGs; a thing without an instance number is a crowd.

    ``known`` are the semantic ids that are categories, with their dataset ids; others are void, and counted where the
    format does not say so by ``void``.
    """

    map_file: str
    encoding: str
    known: Mapping[int, int]
    void: Collection[int] = (0, 255)
    instance_file: str | None = None

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        """Regions of an image (H, W) = ``size``, and what was dropped."""
        semantic, instance = self.read(self.map_file, size, self.encoding)
        if self.instance_file is not None:
            instance, _ = self.read(self.instance_file, size, "semantic")
            if instance.min() < 0:
                raise ValueError(f"{self.instance_file} has instance ids below 0 or above {2**31 - 1}")
        keys = semantic.astype(np.int64) * _INSTANCES
        keys += 0 if instance is None else instance
        return regions_of_ids(keys, self._row)

    def read(self, path: str, size: tuple[int, int], encoding: str) -> tuple[Ids, Ids | None]:
        """Semantic and instance ids of a PNG; ``ValueError`` for another size than the image's."""
        pixels = read_ids(path, deep=encoding.startswith("value/"))
        if pixels.shape[:2] != size:
            raise ValueError(f"{path} has (height, width) {pixels.shape[:2]}, the image {size}")
        try:
            return ENCODINGS[encoding](pixels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _row(self, key: int) -> MapRow:
        semantic, number = divmod(key, _INSTANCES)
        if semantic in self.known:
            return self.known[semantic], number == 0
        return None if semantic in self.void else f"id {semantic}"


_VOID = {"background", "void", "unlabeled", "unlabelled", "ignore", "ignored"}


def is_void(name: str) -> bool:
    """Whether a class of this name is void, such as ``background`` or labelme's ``__ignore__``."""
    return name.strip().strip("_").lower() in _VOID


def paired(
    image_root: str, map_root: str, image_suffix: str, map_suffix: str, split: str | None, regions: Callable[[str], Any]
) -> list[SourceImage]:
    """Images and their maps: same path below both roots but for the suffixes; one without the other has a problem.

    A suffix is what a name has before its ending, such as ``_leftImg8bit``; which of the endings of images it is does
    not matter.
    """
    maps = {_cut(name, map_suffix): name for name in images_below(map_root) if _has(name, map_suffix)}
    found = []
    for name in images_below(image_root):
        if not _has(name, image_suffix):
            continue
        key, path = _cut(name, image_suffix), os.path.join(image_root, name)
        result_name = name if split is None else f"{split}/{name}"
        if key in maps:
            map_file = os.path.join(map_root, maps.pop(key))
            found.append(SourceImage(path, result_name, regions(map_file), split=split, files=(map_file,)))
        else:
            missing = f"it has no map {key}{map_suffix}.png in {map_root}"
            found.append(SourceImage(path, result_name, split=split, problem=missing))
    if not found:
        raise ValueError(f"There is no image *{image_suffix}.* in {image_root}.")
    for name in maps.values():
        path = os.path.join(map_root, name)
        found.append(SourceImage(path, name, split=split, problem=f"there is no image for it in {image_root}"))
    return found


def _has(name: str, suffix: str) -> bool:
    return os.path.splitext(name)[0].endswith(suffix)


def _cut(name: str, suffix: str) -> str:
    return os.path.splitext(name)[0].removesuffix(suffix)


def split_folders(root: str, candidates: Mapping[str, str], what: str) -> dict[str, str]:
    """Those of the split folders that exist: what the result calls them, and their folders' names."""
    found = {split: folder for split, folder in candidates.items() if os.path.isdir(os.path.join(root, what, folder))}
    if not found:
        raise ValueError(f"There is none of {', '.join(candidates.values())} in {os.path.join(root, what)}.")
    return found


def read_encoded(images: str, maps: str, labels: str | list[dict[str, Any]], encoding: str = "semantic") -> Source:
    """PNGs whose pixels are ids, one an image and of its name.

    Args:
        images: folder of the images.
        maps: folder of the PNGs.
        labels: table of labels: a CSV with id, name and, if it says so, isthing; YAML and JSON too; ids that it lacks
            are void. In Python also its rows.
        encoding: how a pixel says its ids: semantic, value/256, value/1000, red,green, red,blue or red,256*green+blue.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"--encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    categories = read_table(labels) if isinstance(labels, str) else labels
    known = {row["id"]: row["id"] for row in categories}
    found = paired(images, maps, "", "", None, partial(MapRegions, encoding=encoding, known=known))
    files = [labels] if isinstance(labels, str) else []
    return Source(categories, found, files, things_by_default=encoding != "semantic")


def read_coco_stuff(images: str, maps: str, labels: str, shift: str | int = 0) -> Source:
    """COCO-stuff: PNGs of category ids with the table of their labels.

    Both kinds, "pixelmaps" and "stuffthingmaps", are read. Categories are stuff by default; "unlabeled" and "other" are
    void.

    Args:
        images: folder of the images, such as ``val2017``.
        maps: folder of the PNGs of the same names, such as ``stuffthingmaps/val2017``.
        labels: the table, such as COCO-stuff's labels.txt.
        shift: what a pixel lacks to be the category's id in the table: 1 for stuffthingmaps, 0 for pixelmaps.
    """
    try:
        shift = int(shift)
    except ValueError as error:
        raise ValueError(f"--shift must be a whole number, got {shift!r}.") from error
    categories = [row for row in read_table(labels) if not is_void(row["name"]) and row["name"] != "other"]
    known = {row["id"] - shift: row["id"] for row in categories}
    void = {255, *(row["id"] - shift for row in read_table(labels)), -shift} - known.keys()
    found = paired(images, maps, "", "", None, partial(MapRegions, encoding="semantic", known=known, void=void))
    notes = [] if shift else _notes_on_shift([path for image in found for path in image.files])
    return Source(categories, found, [labels], things_by_default=False, notes=notes)


def _notes_on_shift(maps: Sequence[str]) -> list[str]:
    """Pixelmaps have no 255; with the ids of stuffthingmaps every class would be the one before it."""
    for path in maps[:_LOOKED_AT]:
        try:
            has_255 = 255 in read_ids(path)
        except ValueError:
            continue
        if has_255:
            return [f"pixels of 255, as {path} has them. Only stuffthingmaps have such, and they need --shift 1"]
    return []


def read_semantic_instance(images: str, semantic: str, instances: str, labels: str) -> Source:
    """Pairs of a semantic and an instance PNG, of the names of the images.

    Instance 0 of a thing is a crowd.

    Args:
        images: folder of the images.
        semantic: folder of the PNGs of class ids.
        instances: folder of the PNGs of instance numbers, by image.
        labels: table of labels: a CSV with id, name and, if it says so, isthing; YAML and JSON too; ids that it lacks
            are void.
    """
    categories = read_table(labels)
    known = {row["id"]: row["id"] for row in categories}
    instance_files = {os.path.splitext(name)[0]: os.path.join(instances, name) for name in images_below(instances)}
    found = paired(images, semantic, "", "", None, partial(MapRegions, encoding="semantic", known=known))
    joined = [_with_instances(image, semantic, instance_files) for image in found]
    return Source(categories, joined, [labels], things_by_default=False)


def _with_instances(image: SourceImage, semantic: str, instances: Mapping[str, str]) -> SourceImage:
    if not isinstance(image.regions, MapRegions):
        return image
    key = os.path.splitext(os.path.relpath(image.regions.map_file, semantic).replace(os.sep, "/"))[0]
    if key not in instances:
        return replace(image, regions=None, problem=f"it has no instance PNG {key}.png")
    both = replace(image.regions, instance_file=instances[key])
    return replace(image, regions=both, files=(*image.files, instances[key]))
