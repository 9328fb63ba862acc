"""Where the segments of a map lie: boxes, neighbours, and how many pixels of a run are near an edge."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..segments import SegmentMap

__all__ = ["boxes", "edge_band", "label_map", "neighbours", "run_sums"]

BAND_WIDTH = 0.02
"""Width of the band along edges, of the image's diagonal, as Boundary IoU has it (Cheng et al., CVPR 2021)."""


def label_map(segments: SegmentMap) -> npt.NDArray[np.unsignedinteger]:
    """The labels of all pixels, (H, W)."""
    size = segments.shape[0] * segments.shape[1]
    labels = np.repeat(segments.labels, np.diff(segments.starts, append=size))
    return labels.reshape(segments.shape)


def boxes(segments: SegmentMap) -> npt.NDArray[np.int32]:
    """``bbox`` as COCO has it, [x, y, width, height] in px, int32 by label (U + 1, 4); zeros without a pixel."""
    height, width = segments.shape
    ends = np.append(segments.starts[1:], height * width) - 1  # the last pixel of each run
    (top, left), (bottom, right) = np.divmod(segments.starts, width), np.divmod(ends, width)
    left, right = np.where(bottom > top, 0, left), np.where(bottom > top, width - 1, right)
    size = len(segments.pixels)
    low = np.full((2, size), max(height, width))
    high = np.full((2, size), -1)
    order = np.argsort(segments.labels, kind="stable")
    labels = segments.labels[order]
    first = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    known = labels[first]
    for row, (starts, ends_) in enumerate(((left, right), (top, bottom))):
        low[row, known] = np.minimum.reduceat(starts[order], first)
        high[row, known] = np.maximum.reduceat(ends_[order], first)
    result = np.concatenate([low, high - low + 1]).T.astype(np.int32)
    result[high[0] < 0] = 0
    return result


def neighbours(labels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.int64]:
    """Pairs of labels of which a pixel of one is beside or above one of the other, int64 (·, 2), once each."""
    pairs = [
        (first[differs], second[differs])
        for first, second in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:]))
        if (differs := first != second).any()
    ]
    if not pairs:
        return np.empty((0, 2), np.int64)
    first, second = (np.concatenate(side).astype(np.int64) for side in zip(*pairs, strict=True))
    size = int(labels.max()) + 1
    keys = np.unique(np.minimum(first, second) * size + np.maximum(first, second))
    return np.stack([keys // size, keys % size], axis=1)


def edge_band(labels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.bool_]:
    """Bool (H, W): pixels at most d - 1 px (in x and in y) from one that is beside or above one of another label.

    d is :data:`BAND_WIDTH` of the diagonal, at least 1 px; the image's border is no edge.
    """
    height, width = labels.shape
    distance = max(1, round(BAND_WIDTH * float(np.hypot(height, width))))
    band = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        later, earlier = (_cut(labels, axis, part) for part in (slice(1, None), slice(None, -1)))
        differs = later != earlier
        for part in (slice(1, None), slice(None, -1)):
            _cut(band, axis, part)[...] |= differs
    for axis in (0, 1):
        band = _widen(band, axis, distance - 1)
    return band


def _widen(band: npt.NDArray[np.bool_], axis: int, distance: int) -> npt.NDArray[np.bool_]:
    """Every pixel that has one of the band at most ``distance`` away along the axis; in steps that triple."""
    reached = 0
    while reached < distance:
        step = min(2 * reached + 1, distance - reached)
        wider = band.copy()
        _cut(wider, axis, slice(step, None))[...] |= _cut(band, axis, slice(None, -step))
        _cut(wider, axis, slice(None, -step))[...] |= _cut(band, axis, slice(step, None))
        band, reached = wider, reached + step
    return band


def _cut(array: npt.NDArray[Any], axis: int, part: slice) -> npt.NDArray[Any]:
    return array[part] if axis == 0 else array[:, part]


def run_sums(band: npt.NDArray[np.bool_], starts: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.int64]:
    """How many pixels of each run are in the band; runs may be empty."""
    total = np.concatenate([[0], np.cumsum(band.reshape(-1), dtype=np.int32)])
    return np.diff(total[starts], append=total[-1]).astype(np.int64)
