"""ADE20K, as the Scene Parsing challenge has it, and in full."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from .files import images_below, read_ids, read_lines, stem
from .id_maps import MapRegions, paired, split_folders
from .regions import MapRow, Region, Source, SourceImage, regions_of_ids
from .splits import part_name

__all__ = ["read_ade20k"]

# The classes that its instance annotations have, by the first of their names.
_THINGS: Final = frozenset(
    name.strip()
    for name in """
    bed, windowpane, window, cabinet, person, door, table, curtain, chair, car, painting, sofa, shelf, mirror, armchair,
    seat, fence, desk, wardrobe, lamp, bathtub, railing, cushion, box, column, signboard, chest of drawers, counter,
    sink, fireplace, refrigerator, stairs, case, pool table, pillow, screen door, bookcase, coffee table, toilet,
    flower, book, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, arcade machine, bus,
    towel, light, truck, chandelier, awning, streetlight, booth, television receiver, television, airplane, apparel,
    pole, bannister, ottoman, bottle, van, ship, fountain, washer, plaything, stool, barrel, basket, bag, minibike,
    oven, ball, food, step, trade name, microwave, pot, animal, bicycle, dishwasher, screen, sculpture, hood, sconce,
    vase, traffic light, tray, ashcan, fan, plate, monitor, bulletin board, radiator, glass, clock, flag
    """.replace("\n", " ").split(",")
)


def read_ade20k(root: str) -> Source:
    """ADE20K, of the Scene Parsing challenge or in full.

    ``ADEChallengeData2016`` has ``images``, ``annotations``, ``objectInfo150.txt`` and, for the 100 things,
    ``annotations_instance``; without the latter every pixel of a thing is part of a crowd. The full ADE20K has
    ``_seg.png`` and ``.json`` beside each image; its objects are stuff by default.

    Args:
        root: ``ADEChallengeData2016``, or a folder of the full ADE20K.

    Raises:
        ValueError: the folders are not there.
    """
    if not os.path.isfile(_table(root)):
        return _read_full(root)
    categories = [_ade20k_row(line, _table(root)) for line in read_lines(_table(root))[1:]]
    known = {row["id"]: row["id"] for row in categories}
    images: list[SourceImage] = []
    for split, folder in split_folders(root, {"train": "training", "val": "validation"}, "annotations").items():
        instances = os.path.join(root, "annotations_instance", folder)
        regions = partial(_Ade20kRegions, known=known, instances=instances)
        both = paired(f"{root}/images/{folder}", f"{root}/annotations/{folder}", "", "", split, regions)
        images += [replace(i, files=(*i.files, *(f"{instances}/{stem(f)}.png" for f in i.files))) for i in both]
    return Source(categories, images, [_table(root)], things_by_default=False)


def _read_full(root: str) -> Source:
    """The full ADE20K: a class is 256 times a tenth of red, and green; blue is the number of an object."""
    names: dict[int, str] = {}
    found: list[SourceImage] = []
    alone: list[str] = []
    names_below = images_below(root)
    for name in names_below:
        base = os.path.join(root, os.path.splitext(name)[0])
        if not os.path.isfile(f"{base}_seg.png"):
            alone += [name] if name.lower().endswith((".jpg", ".jpeg")) else []
            continue
        split = next((part_name(part) for part in name.split("/") if part in ("training", "validation")), None)
        result_name = f"{split}/{os.path.basename(name)}" if split else os.path.basename(name)
        _add_names(f"{base}.json", names)
        found.append(
            SourceImage(
                os.path.join(root, name),
                result_name,
                _FullRegions(f"{base}_seg.png", names),
                split=split,
                files=(f"{base}_seg.png", f"{base}.json"),
            )
        )
    if not found:
        raise ValueError(f"{root} has neither objectInfo150.txt nor images with _seg.png: it is no ADE20K.")
    notes = ["parts of objects (_parts_1.png and so on) are not read"]
    used = {f"{os.path.splitext(os.path.relpath(image.path, root))[0]}_seg.png" for image in found}
    orphans = [name for name in names_below if name.endswith("_seg.png") and name not in used]
    notes += [f"{len(orphans)} _seg.png without an image, such as {orphans[0]}"] if orphans else []
    notes += [f"{len(alone)} images without _seg.png, such as {alone[0]}"] if alone else []
    return Source([{"id": i, "name": names[i]} for i in sorted(names)], found, [], things_by_default=False, notes=notes)


def _add_names(path: str, names: dict[int, str]) -> None:
    """Names of the classes that an image has, by their numbers; those that share a name get their number too."""
    try:
        with open(path, "rb") as f:
            content = f.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}. It has the names of the classes.") from error
    try:
        objects = json.loads(content.decode(errors="replace"))["annotation"]["object"]
        for row in objects if isinstance(objects, list) else [objects]:
            number, name = int(row["name_ndx"]), str(row["name"]).split(",")[0].strip()
            taken = name in names.values() and names.get(number) != name
            names.setdefault(number, f"{name} {number}" if taken else name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no JSON of ADE20K: it has no annotation.object ({error}). Unpack it again."
        ) from error


@dataclass(frozen=True)
class _FullRegions:
    map_file: str
    known: Mapping[int, str]

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        pixels = read_ids(self.map_file)
        if pixels.ndim != 3 or pixels.shape[:2] != size:
            raise ValueError(f"{self.map_file} must be RGB of (height, width) {size}, got {pixels.shape}")
        red, green, blue = (pixels[..., c].astype(np.int64) for c in range(3))
        return regions_of_ids((red // 10 * 256 + green) * 256 + blue, self._row)

    def _row(self, key: int) -> MapRow:
        number = key // 256
        return (number, False) if number in self.known else f"class {number}" if number else None


def _table(root: str) -> str:
    return os.path.join(root, "objectInfo150.txt")


def _ade20k_row(line: str, path: str) -> dict[str, Any]:
    first, *_, names = line.split("\t") if "\t" in line else ["", line]
    if not first.strip().isdigit():
        raise ValueError(f"{path}: a line begins with the number of its class and a tab, got {line[:60]!r}.")
    name = names.split(",")[0].split(";")[0].strip()
    return {"id": int(first), "name": name, "isthing": int(name in _THINGS)}


@dataclass(frozen=True)
class _Ade20kRegions:
    """Semantic ids, and instances whose numbers are in the green channel of another PNG; an instance is of the category
    that most of its pixels have."""

    map_file: str
    known: Mapping[int, int]
    instances: str

    def __call__(self, size: tuple[int, int]) -> tuple[list[Region], Mapping[str, int]]:
        regions = MapRegions(self.map_file, "semantic", self.known, void=(0,))
        path = os.path.join(self.instances, f"{stem(self.map_file)}.png")
        found, dropped = regions(size)
        if not os.path.isfile(path):
            return found, {**dropped, "image without annotations_instance, so its things are crowds": 1}
        semantic, _ = regions.read(self.map_file, size, "semantic")
        _, instance = regions.read(path, size, "red,green")
        kind, _ = regions.read(path, size, "red,blue")
        instance = np.where(kind > 0, kind * 256 + (0 if instance is None else instance), 0)
        for region in regions_of_ids(instance, lambda i: (i, False) if i else None)[0]:
            window = region.mask.window(semantic)[region.mask.mask]
            category = self.known.get(int(np.bincount(window).argmax()))
            if category is not None:
                found.append(Region(category, region.mask, z=1.0))
        return found, dropped
