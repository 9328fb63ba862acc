"""How large the segments of a dataset are, how many an image has and which categories occur: from the JSON alone, where
it has areas and boxes, else from a few panoptic maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.structures import BoxMode

from ..panoptic_png import read_panoptic_rgb, rgb2id

__all__ = ["SegmentStatistics", "segment_statistics"]

_MOST_IMAGES = 2000  # that are looked at; evenly spread over the dataset
_MOST_MAPS = 24  # that are read where the JSON has no areas or boxes


@dataclass(frozen=True)
class SegmentStatistics:
    """Of N images with B things that are no crowd and S stuff segments, all at the size of their image.

    Attributes:
        image_sizes: float (N, 2), height and width, px.
        things_per_image: int (N,).
        box_sizes: float (B, 2), height and width, px.
        box_images: int (B,), index of the image of each box.
        stuff_areas: float (S,), px.
        stuff_ids: int (S,), ``category_id`` of each.
        categories: ``(category_id, isthing)`` of all segments of the whole dataset.
        countable: those of them that are things and not always crowds.
    """

    image_sizes: npt.NDArray[np.float64]
    things_per_image: npt.NDArray[np.int64]
    box_sizes: npt.NDArray[np.float64]
    box_images: npt.NDArray[np.int64]
    stuff_areas: npt.NDArray[np.float64]
    stuff_ids: npt.NDArray[np.int64]
    categories: frozenset[tuple[int, bool]]
    countable: frozenset[tuple[int, bool]]


def segment_statistics(dicts: Sequence[dict[str, Any]]) -> SegmentStatistics:
    """Statistics of detectron2's standard dicts; of their maps only what the dicts do not say is read.

    Args:
        dicts: of a panoptic dataset (``segments_info``), or with ``annotations``, whose boxes then count.
    """
    sampled = dicts[:: max(1, -(-len(dicts) // _MOST_IMAGES))]
    maps_left = _MOST_MAPS
    sizes, counts, boxes, images, stuff = [], [], [], [], []
    for index, one in enumerate(sampled):
        rows = _rows(one)
        if any("area" not in row or "bbox" not in row for row in rows):
            rows = _measured(one, rows) if maps_left > 0 else []
            maps_left -= 1
        things = [row for row in rows if row["isthing"] and not row.get("iscrowd", 0)]
        sizes.append((one["height"], one["width"]))
        counts.append(sum(bool(row["isthing"]) and not row.get("iscrowd", 0) for row in _rows(one)))
        boxes += [(row["bbox"][3], row["bbox"][2]) for row in things]
        images += [index] * len(things)
        stuff += [(row["area"], row["category_id"]) for row in rows if not row["isthing"]]
    pairs = {(s["category_id"], bool(s["isthing"]), not s.get("iscrowd", 0)) for d in dicts for s in _rows(d)}
    return SegmentStatistics(
        np.array(sizes, np.float64).reshape(-1, 2),
        np.array(counts, np.int64),
        np.array(boxes, np.float64).reshape(-1, 2),
        np.array(images, np.int64),
        np.array([area for area, _ in stuff], np.float64),
        np.array([category for _, category in stuff], np.int64),
        frozenset((category, isthing) for category, isthing, _ in pairs),
        frozenset((category, isthing) for category, isthing, single in pairs if isthing and single),
    )


def _rows(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Segments of an image; its ``annotations``, where it has them, are the things."""
    rows: list[dict[str, Any]] = list(one.get("segments_info", ()))
    if "annotations" not in one:
        return rows
    things = [{**a, "isthing": True, "area": 0, "bbox": _xywh(a)} for a in one["annotations"] if "bbox" in a]
    return [*things, *(row for row in rows if not row["isthing"])]


def _xywh(annotation: dict[str, Any]) -> list[float]:
    mode = BoxMode(annotation.get("bbox_mode", BoxMode.XYWH_ABS))
    box: list[float] = list(BoxMode.convert(list(annotation["bbox"]), mode, BoxMode.XYWH_ABS))
    return box


def _measured(one: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The segments with area and box as their map has them; none where it cannot be read: training will say why."""
    try:
        ids = rgb2id(read_panoptic_rgb(one["pan_seg_file_name"]))
    except (KeyError, OSError, ValueError):
        return []
    measured = []
    for row in rows:
        ys, xs = np.nonzero(ids == row.get("id"))
        if len(ys):
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            measured.append({**row, "area": len(ys), "bbox": box})
    return measured
