"""Segments that a combiner left out: what they explain of the missed ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .causes import CAUSES

__all__ = ["DROP_CAUSES", "DroppedSegment", "mark_dropped"]

DROP_CAUSES = tuple(name for name in CAUSES if name.startswith("below_"))
_MISSED = CAUSES.index("missed")


class DroppedSegment(NamedTuple):
    """``category``: index. ``cause``: one of ``DROP_CAUSES``. ``mask``: bool (H, W)."""

    category: int
    cause: str
    mask: npt.NDArray[np.bool_]


def mark_dropped(
    rows: npt.NDArray[np.void], gt_ids: npt.NDArray[np.integer], dropped: Sequence[DroppedSegment]
) -> npt.NDArray[np.void]:
    """The segments of an image, in which those count as dropped that were missed only because of a threshold.

    A missed segment gets the cause of the dropped one with the largest IoU above 0.5 with it, of its category; IoU is
    that of PQ, so that void counts for nothing.

    Args:
        rows: of the image, ``SEGMENT_DTYPE`` (N,); they are not changed.
        gt_ids: segment ids (H, W) of the ground truth.
        dropped: what the combiner left out.
    """
    result = rows.copy()
    best = np.full(len(rows), 0.5)
    for segment in dropped:
        under, times = np.unique(gt_ids[segment.mask], return_counts=True)
        seen = times[under != 0].sum()
        for id_, shared in zip(under.tolist(), times.tolist(), strict=True):
            same = ~rows["predicted"] & (rows["id"] == id_) & (rows["category"] == segment.category)
            for index in np.flatnonzero(same & (rows["cause"] == _MISSED)):
                iou = shared / (seen + rows["pixels"][index] - shared)
                if iou > best[index]:
                    best[index], result["cause"][index] = iou, CAUSES.index(segment.cause)
    return result
