"""Which part of a dataset each image belongs to."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from ...category_comparison import refuse_different_categories
from .regions import Source, SourceImage

__all__ = ["WHOLE", "file_stem", "groups_of", "join_parts", "part_name", "split_images", "without_taken_images"]

WHOLE: Final = "all"
"""Name of the only part of a dataset that is not split."""


_NO_PART: Final = "default"  # what CVAT and datumaro call the only part


def part_name(name: str) -> str:
    """What the result calls a part of a dataset: ``Train``, ``training`` and ``train2017`` are ``train``, ``valid`` and
    ``Validation`` are ``val``, and so on.
    """
    match = re.fullmatch(r"(train|val|test)(ing|id|idation)?[-_]?(20\d\d)?", name.lower())
    return match[1] if match else name


def join_parts(parts: Mapping[str, Source]) -> Source:
    """One source of the parts of a dataset that lie in files of their own; alone, a part is the whole.

    Raises:
        ValueError: their categories differ.
    """
    (first_name, first), *others = parts.items()
    if not others:
        return first
    for name, source in others:
        refuse_different_categories(
            first.categories, first_name, source.categories, name, remedy="Export the parts with the same categories."
        )
    images = [
        replace(image, name=f"{name}/{image.name}", split=part_name(name), image_id=None)
        for name, source in parts.items()
        for image in source.images
    ]
    files = [path for source in parts.values() for path in source.files]
    notes = [f"{name}: {note}" for name, source in parts.items() for note in source.notes]
    void = list(dict.fromkeys(name for source in parts.values() for name in source.void))
    return replace(first, images=images, files=files, notes=notes, void=void)


def file_stem(part: str) -> str:
    """Name of a part's folder of PNGs and, with ``.json``, of its annotations."""
    return "panoptic" if part == WHOLE else f"panoptic_{part}"


def split_images(
    images: Sequence[SourceImage], shares: Mapping[str, float], group: str | None
) -> dict[str, list[SourceImage]]:
    """Images by part of the dataset: as asked for, else as the source has them.

    Groups stay together. They are taken in an order that depends on nothing but their names, each into the part that
    lacks most of its share, so the same dataset is always split the same way.

    Args:
        images: of the whole dataset.
        shares: of each part, by its name; empty for the source's own parts.
        group: a regular expression, see :class:`.conversion.Conversion`.

    Raises:
        ValueError: names that would lie outside the output or are there twice, an expression that does not match.
    """
    _check_names(images)
    parts: dict[str, list[SourceImage]] = {}
    if not shares:
        for image in images:
            has_part = image.split is not None and image.split.lower() != _NO_PART
            parts.setdefault(part_name(image.split or "") if has_part else WHOLE, []).append(image)
        return parts
    groups = groups_of(images, group)
    total = sum(shares.values())
    wanted = {part: len(images) * share / total for part, share in shares.items()}
    parts = {part: [] for part in wanted}
    by_hash = sorted(groups, key=lambda g: hashlib.sha256(g.encode()).hexdigest())
    for name in sorted(by_hash, key=lambda g: -len(groups[g])):
        part = max(wanted, key=lambda p: wanted[p] - len(parts[p]))
        parts[part] += groups[name]
    empty = [part for part, members in parts.items() if not members]
    if empty:
        raise ValueError(f"--split leaves {', '.join(empty)} without an image: there are only {len(groups)} groups.")
    return {part: sorted(members, key=lambda image: image.name) for part, members in parts.items()}


def without_taken_images(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Images, of which those whose file is another's have the problem that there is no such image.

    An annotation's image is looked for by its file name where its folder is unknown, so of ``a/1.jpg`` and ``b/1.jpg``
    one may get the other's file. The file is that image's whose name agrees most with its path. In several parts of a
    dataset an image may be on purpose.
    """
    users: dict[tuple[str | None, str], list[SourceImage]] = {}
    for image in images:
        if image.problem is None and image.content is None:
            users.setdefault((image.split, os.path.normpath(image.path)), []).append(image)
    owners = {file: max(ones, key=_likeness) for file, ones in users.items()}

    def checked(image: SourceImage) -> SourceImage:
        owner = owners.get((image.split, os.path.normpath(image.path)), image)
        if image.problem is not None or image.content is not None or owner.name == image.name:
            return image
        return replace(image, problem=f"there is no image {image.name!r}; {image.path} is that of {owner.name!r}")

    return [checked(image) for image in images]


def _likeness(image: SourceImage) -> int:
    """How many parts of an image's path, from its end on, are those of its name; the ending does not count."""
    paths = (os.path.splitext(path.replace("\\", "/"))[0].split("/")[::-1] for path in (image.path, image.name))
    pairs = enumerate(zip(*paths, strict=False))
    return next((i for i, (a, b) in pairs if a != b), len(image.name.split("/")))


def groups_of(images: Sequence[SourceImage], group: str | None) -> dict[str, list[SourceImage]]:
    """Images that stay in one part, by what their names have in common; see :func:`split_images`."""
    groups: dict[str, list[SourceImage]] = {}
    for image in images:
        groups.setdefault(_group_of(image.name, group), []).append(image)
    return groups


def _group_of(name: str, group: str | None) -> str:
    if group is None:
        return name
    match = re.search(group, name)
    if match is None:
        raise ValueError(f"--group {group!r} does not match {name!r}: it must match the name of every image.")
    return match.group(1) if match.re.groups else match.group(0)


def _check_names(images: Sequence[SourceImage]) -> None:
    outside = [i.name for i in images if os.path.isabs(i.name) or ".." in re.split(r"[/\\]", i.name) or not i.name]
    if outside:
        raise ValueError(f"File names that would lie outside the output folder: {outside[:5]}. Rename them.")
    repeated = [name for name, times in Counter(i.name for i in images).items() if times > 1]
    if repeated:
        raise ValueError(
            f"Image {repeated[0]} is listed more than once ({len(repeated)} such images in all). Keep one entry of "
            "each, with all annotations of that image."
        )
    stems = Counter(os.path.splitext(i.name)[0].lower() for i in images)
    twice = [stem for stem, times in stems.items() if times > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} images have names that differ in nothing but the ending or in case, such as "
            f"{twice[:3]}: their "
            "panoptic PNGs would overwrite each other. Rename them."
        )
