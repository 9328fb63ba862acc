"""The labels of Cityscapes, as its label files and its ``instanceIds`` number them, and how these are read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from detectron2.utils.file_io import PathManager
from PIL import Image

__all__ = ["FIRST_INSTANCE", "IGNORED", "categories", "label_of", "read_instance_ids"]

FIRST_INSTANCE: Final = 1000
"""Below it, an instance id is a label's: stuff, or a group of things; from it on, 1000 times a label's and a number."""

_TABLE = (
    # id, name, supercategory, isthing, colour; in the order of the train ids 0 … 18
    (7, "road", "flat", 0, (128, 64, 128)),
    (8, "sidewalk", "flat", 0, (244, 35, 232)),
    (11, "building", "construction", 0, (70, 70, 70)),
    (12, "wall", "construction", 0, (102, 102, 156)),
    (13, "fence", "construction", 0, (190, 153, 153)),
    (17, "pole", "object", 0, (153, 153, 153)),
    (19, "traffic light", "object", 0, (250, 170, 30)),
    (20, "traffic sign", "object", 0, (220, 220, 0)),
    (21, "vegetation", "nature", 0, (107, 142, 35)),
    (22, "terrain", "nature", 0, (152, 251, 152)),
    (23, "sky", "sky", 0, (70, 130, 180)),
    (24, "person", "human", 1, (220, 20, 60)),
    (25, "rider", "human", 1, (255, 0, 0)),
    (26, "car", "vehicle", 1, (0, 0, 142)),
    (27, "truck", "vehicle", 1, (0, 0, 70)),
    (28, "bus", "vehicle", 1, (0, 60, 100)),
    (31, "train", "vehicle", 1, (0, 80, 100)),
    (32, "motorcycle", "vehicle", 1, (0, 0, 230)),
    (33, "bicycle", "vehicle", 1, (119, 11, 32)),
)

IGNORED: Final = frozenset({-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30})
"""Ids of the labels that no evaluation counts, from "unlabeled" to "caravan" and "trailer": void."""


def categories() -> list[dict[str, Any]]:
    """The 19 classes as the ``categories`` of a COCO panoptic JSON; a fresh copy each time."""
    keys = ("id", "name", "supercategory", "isthing", "color")
    return [dict(zip(keys, (*row[:4], list(row[4])), strict=True)) for row in _TABLE]


def label_of(instance_id: int) -> int:
    """The label of an instance id."""
    return instance_id if instance_id < FIRST_INSTANCE else instance_id // FIRST_INSTANCE


def read_instance_ids(path: str) -> npt.NDArray[np.int32]:
    """Instance ids, int32 (H, W), of an ``instanceIds`` PNG.

    Raises:
        ValueError: the file is broken or not gray.
    """
    try:
        with PathManager.open(path, "rb") as f, Image.open(f) as image:
            ids = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it cannot be read ({error}). Unpack it again.") from error
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"it must have one channel of integers, got {ids.dtype} {ids.shape}.")
    return ids.astype(np.int32)
