"""One drawing as two photographs with different margins, for writers of sources in any format."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

H, W = 24, 32
CLASSES = ["road", "car", "person"]
# Visible parts: a road, two cars, a person on the second car; the first rows are unlabelled.
BOXES = [("road", (0, 4, 30, 22)), ("car", (2, 6, 9, 15)), ("car", (14, 8, 27, 18)), ("person", (17, 6, 22, 20))]
THINGS = "--things car,person"
LAYERS = f"{THINGS} --layers 'road < car < person'"
MARGINS = {"a": 0, "b": 6}
"""Columns that an image has more than the drawing, by its name: maps of two images do not fit one another."""

Map = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


class Drawing(NamedTuple):
    """Class from 1 (0 is void) and number of the instance from 1 (0 is stuff): uint8 (H, W)."""

    semantic: Map
    instance: Map


def drawing(name: str) -> Drawing:
    """Of image ``a`` or ``b``."""
    semantic, instance = np.zeros((2, H, W + MARGINS[name]), np.uint8)
    for number, (label, (x0, y0, x1, y1)) in enumerate(BOXES):
        semantic[y0:y1, x0:x1] = CLASSES.index(label) + 1
        instance[y0:y1, x0:x1] = number
    return Drawing(semantic, instance)


def segments(name: str) -> list[tuple[str, bytes]]:
    """Label and mask of each segment that a sound conversion has, sorted."""
    semantic, instance = drawing(name)
    keys = semantic.astype(int) * 10 + instance
    return sorted((CLASSES[k // 10 - 1], (keys == k).tobytes()) for k in np.unique(keys) if k)


def save(path: Path, pixels: npt.NDArray[Any]) -> None:
    """An image file, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_photo(path: Path) -> None:
    """Noise of the size of the image that the file is named by."""
    shape = (H, W + MARGINS[path.stem[0]], 3)
    save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def write_file(path: Path, content: Any) -> None:
    """Text as it is, anything else as JSON; in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def box_corners(box: Box) -> list[list[int]]:
    """A box as a polygon."""
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def box_mask(box: Box, name: str) -> npt.NDArray[np.bool_]:
    """A box with nothing on it: bool (H, width of the image)."""
    mask = np.zeros((H, W + MARGINS[name]), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask
