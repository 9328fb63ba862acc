"""One folder of binary masks an image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from .files import CONVERSION_RECORD, IMAGE_ENDINGS, images_below, read_ids, stem
from .regions import Region, Source, SourceImage, mask_of_array

__all__ = ["read_masks"]


def read_masks(
    root: str, images: str | None = None, pattern: str = r"^(?:.*/)?(?P<label>[^/]*?)[-_ ]?\d*\.[^.]+$"
) -> Source:
    """One folder of binary masks an image.

    Either ``ROOT/IMAGE/images/*`` and ``ROOT/IMAGE/masks/*``, or ``images/NAME.*`` with ``ROOT/NAME/*``.

    Args:
        root: folder of the folders.
        images: folder of the images; ``root`` if not given.
        pattern: regular expression that finds a mask's category as ``label`` in its path below the image's folder; by
            default it is its name without a number, or "object" where nothing else is left.

    Raises:
        ValueError: there are no such folders, or a mask whose name has no label.
    """
    folders = [f for f in sorted(os.listdir(root)) if _has_masks(os.path.join(root, f))]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--pattern must be a regular expression, but {pattern!r} is none: {error}.") from error
    ids: dict[str, int] = {}
    found = []
    for folder in folders:
        base = os.path.join(root, folder)
        own = os.path.join(base, "images")
        files = images_below(base)
        if os.path.isdir(own):
            candidates = [os.path.join(base, f) for f in files if f.startswith("images/")]
            files = [f for f in files if not f.startswith("images/")]
        else:
            candidates = [os.path.join(images or root, f) for f in os.listdir(images or root) if stem(f) == folder]
            candidates = [c for c in candidates if os.path.isfile(c)]
        masks = [(os.path.join(base, f), ids.setdefault(_label(f, expression), len(ids) + 1)) for f in files]
        if not candidates:
            found.append(SourceImage(base, folder, problem=f"there is no image for the masks in {base}"))
            continue
        name = f"{folder}{os.path.splitext(candidates[0])[1]}"
        paths = tuple(path for path, _ in masks)
        found.append(SourceImage(candidates[0], name, partial(_mask_regions, masks=masks), files=paths))
    if not ids:
        raise ValueError(f"There is no folder with masks in {root}.")
    alone = _without_masks(root, images, found)
    notes = [f"{len(alone)} images without a folder of masks, such as {alone[0]}"] if alone else []
    return Source([{"id": i, "name": name} for name, i in ids.items()], found, [], notes=notes)


def _has_masks(path: str) -> bool:
    """Whether it may be a folder of masks: not a hidden one, nor what a conversion wrote beside them."""
    if not os.path.isdir(path) or os.path.basename(path).startswith("."):
        return False
    return not any(name.startswith(CONVERSION_RECORD) for name in os.listdir(path))


def _without_masks(root: str, images: str | None, found: Sequence[SourceImage]) -> list[str]:
    """Images that lie where those of the masks do, or in ``images``, and have none."""
    folders = {os.path.dirname(image.path) for image in found if image.problem is None and image.regions}
    beside = [f for f in folders if os.path.samefile(f, images or root)]
    used = {os.path.realpath(image.path) for image in found}
    paths = [os.path.join(folder, name) for folder in beside for name in sorted(os.listdir(folder))]
    are_images = (p for p in paths if os.path.splitext(p)[1].lower() in IMAGE_ENDINGS)
    return [path for path in are_images if os.path.realpath(path) not in used]


def _label(path: str, expression: re.Pattern[str]) -> str:
    match = expression.search(path.removeprefix("masks/"))
    if match is None:
        raise ValueError(f"--pattern {expression.pattern!r} does not match {path!r}.")
    label = match.groupdict().get("label") or ""
    looks_random = re.fullmatch(r"[0-9a-f]{8,}|\d*|mask", label, re.IGNORECASE)
    return "object" if looks_random else label


def _values(path: str) -> npt.NDArray[np.int32]:
    """Values (H, W) of a mask, 0 where the object is not.

    Of colours, the highest channel, and nothing where alpha says so; of one opaque colour, alpha. Indices of a palette
    count by their colours if black is one of them, otherwise as they are.
    """
    pixels = read_ids(path, exact=False, alpha=True)
    if pixels.ndim == 2:
        return pixels
    colors = pixels[..., :3].max(axis=2).astype(np.int32)
    if pixels.shape[2] == 3 or pixels[..., 3].min() == pixels[..., 3].max():
        return colors
    alpha = pixels[..., 3].astype(np.int32)
    if colors[alpha > 0].max() == 0 or colors.min() == colors.max():
        return alpha
    return np.where(alpha > 127, colors, 0)


def _mask_regions(size: tuple[int, int], masks: Sequence[tuple[str, int]]) -> tuple[list[Region], Mapping[str, int]]:
    regions = []
    dropped: Counter[str] = Counter()
    for path, category in masks:
        values = _values(path)
        if values.shape != size:
            raise ValueError(f"{path} has (height, width) {values.shape}, the image {size}")
        present = np.unique(values)
        is_binary = len(present) <= 2
        if len(present) == 2 and present[0] > 0:
            raise ValueError(f"{path} has the values {present[0]} and {present[1]}: 0 must be what is not the object")
        dropped["mask with shades between two values, cut at half the highest"] += not is_binary
        mask = mask_of_array(values > 0 if is_binary else values > values.max() / 2)
        dropped["empty mask"] += mask is None
        if mask is not None:
            regions.append(Region(category, mask))
    return regions, +dropped
