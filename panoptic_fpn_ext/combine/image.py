"""One image: masks in, panoptic map out. Pure functions.

Shapes: H, W image.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..coco_fields import runs_of_text
from ..structures import VOID_ID

__all__ = ["combine_image", "decode"]

Mask = npt.NDArray[np.bool_]


def combine_image(
    instances: Iterable[tuple[int, Mask]],
    semantics: Iterable[tuple[int, Mask]],
    size: tuple[int, int],
    overlap_threshold: float,
    stuff_area_threshold: float,
) -> tuple[npt.NDArray[np.int32], list[dict[str, int]]]:
    """The procedure of panopticapi: instances first, in their order, then stuff on what is free.

    Args:
        instances: category id and mask, bool (H, W); best first.
        semantics: the same of stuff, in the order of the results; a category may come twice.
        size: (H, W).
        overlap_threshold: largest fraction of an instance's pixels that may be taken already.
        stuff_area_threshold: stuff with fewer free pixels stays void.

    Returns:
        Segment ids 1, 2, … and 0 for void, int32 (H, W); and segments with ``id`` and ``category_id``. Unlike
        panopticapi's list it has no segments without a pixel, and each stuff category once.
    """
    ids = np.full(size, VOID_ID, np.int32)
    segments: list[dict[str, int]] = []

    def add(category_id: int, mask: Mask) -> None:
        segments.append({"id": len(segments) + 1, "category_id": category_id})
        ids[mask] = len(segments)

    for category_id, mask in instances:
        free = mask & (ids == VOID_ID)
        area, free_area = int(np.count_nonzero(mask)), int(np.count_nonzero(free))
        if free_area and (area - free_area) / area <= overlap_threshold:
            add(category_id, free)
    ids_of_stuff: dict[int, int] = {}
    for category_id, mask in semantics:
        free = mask & (ids == VOID_ID)
        free_area = int(np.count_nonzero(free))
        if not free_area or free_area < stuff_area_threshold:
            continue
        if category_id in ids_of_stuff:
            ids[free] = ids_of_stuff[category_id]
        else:
            add(category_id, free)
            ids_of_stuff[category_id] = len(segments)
    return ids, segments


def decode(segmentation: Any, size: Sequence[int]) -> Mask:
    """Mask, bool (H, W), of a segmentation in COCO's results format: run-length encoded, compressed or not.

    Raises:
        ValueError: it is something else, broken, or of another size.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("its segmentation must be run-length encoded, an object with 'size' and 'counts'")
    if list(segmentation["size"]) != list(size):
        raise ValueError(f"its segmentation has size {segmentation['size']}, its image {list(size)} (height, width)")
    counts = segmentation["counts"]
    try:  # pycocotools itself reads past the end of what is broken
        runs = counts if isinstance(counts, list) else runs_of_text(counts)
        total = sum(runs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its run-length encoding is broken ({error})") from error
    if total != size[0] * size[1] or min(runs, default=0) < 0:
        raise ValueError(f"its run-length encoding is broken: runs of {total} pixels, not {size[0] * size[1]}")
    if isinstance(counts, list):
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    return np.asarray(coco_mask.decode(segmentation), dtype=bool)
