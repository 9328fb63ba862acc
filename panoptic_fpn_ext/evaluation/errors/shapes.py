"""Where the segments of a map lie: boxes, neighbours, and how many pixels of a run are near an edge.

Shapes: H, W image size, R runs of one map, M runs of two, P pairs of labels, E pairs of pixels with an edge between.
Positions, rows and columns are int32, which is faster than int64; an image has less than 2³¹ pixels.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..segments import SegmentMap

__all__ = ["EdgeBand", "Edges", "boxes", "coordinates", "edge_band", "find_edges", "id_map", "join_boxes"]

BAND_WIDTH = 0.02
"""Width of the band along edges, of the image's diagonal, as Boundary IoU has it (Cheng et al., CVPR 2021)."""

_Ints = npt.NDArray[np.int32]
_Coordinates = tuple[_Ints, _Ints]


def coordinates(positions: npt.NDArray[np.signedinteger], width: int) -> _Coordinates:
    """Row and column of positions in a flattened map; faster than `np.divmod`."""
    positions = positions.astype(np.int32, copy=False)
    rows = positions // np.int32(width)
    return rows, positions - rows * np.int32(width)


def boxes(keys: npt.NDArray[np.intp], size: int, starts: _Coordinates, shape: tuple[int, ...]) -> _Ints:
    """The box around the runs of each key: [left, top, -right, -bottom], int32 (4, size), the last two exclusive.

    Args:
        keys: of the runs (M,), in [0, size); each occurs.
        size: how many keys there are.
        starts: rows and columns where the runs start, row by row; together they fill the image.
        shape: (H, W).
    """
    (height, width), (top, left) = shape, starts
    bottom, right = np.append(top[1:], np.int32(height)), np.append(left[1:], np.int32(0))  # where the next one starts
    at_end = right == 0
    bottom = bottom - at_end
    several = bottom > top  # these reach from border to border
    result = np.zeros((4, size), np.int32)
    np.minimum.at(result[0], keys, left - np.int32(width))  # below 0, so that the zeros do not count
    np.maximum.at(result[2], keys, np.where(several | at_end, np.int32(width), right))
    result[0] += np.int32(width)
    result[0, keys[several]] = 0
    result[1, keys[::-1]] = top[::-1]  # the last value stays: that of the first run
    result[3, keys] = bottom + np.int32(1)
    result[2:] *= -1
    return result


def join_boxes(sides: _Ints, labels: npt.NDArray[np.intp], size: int) -> _Ints:
    """``bbox`` as COCO has it, [x, y, width, height] in px, int32 (size, 4), zeros without a pixel.

    Args:
        sides: :func:`boxes` of parts, (4, P).
        labels: whose parts these are, (P,).
        size: how many labels there are.
    """
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    low = np.minimum.reduceat(sides[:, order], first, axis=1)
    result = np.zeros((size, 4), np.int32)
    result[labels[first], :2], result[labels[first], 2:] = low[:2].T, (-low[2:] - low[:2]).T
    return result


def id_map(segments: SegmentMap) -> npt.NDArray[np.int64]:
    """Segment ids (H, W), int64; -1 where an id is not listed."""
    labels = np.repeat(segments.labels, np.diff(segments.starts, append=segments.shape[0] * segments.shape[1]))
    return np.append(segments.ids, -1)[labels].reshape(segments.shape)


class Edges(NamedTuple):
    """Where pixels side by side, or one above the other, have different labels.

    ``beside``: rows and columns of the right one, int32 each; ``above``: of the upper one. ``labels``: those of the two
    pixels, side by side and then one above the other.
    """

    beside: _Coordinates
    above: _Coordinates
    labels: tuple[tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.unsignedinteger]], ...]


def find_edges(segments: SegmentMap, starts: _Coordinates) -> Edges:
    """All edges of a map; the image's border is none. ``starts``: rows and columns where its runs start."""
    (height, width), labels = segments.shape, segments.labels
    pixels = np.repeat(labels, np.diff(segments.starts, append=height * width))
    beside = np.flatnonzero((labels[1:] != labels[:-1]) & (starts[1][1:] != 0))
    above = np.flatnonzero(pixels[width:] != pixels[:-width])
    return Edges(
        beside=(starts[0][1:][beside], starts[1][1:][beside]),
        above=coordinates(above, width),
        labels=((labels[:-1][beside], labels[1:][beside]), (pixels[above], pixels[above + width])),
    )


class EdgeBand(NamedTuple):
    """Pixels near an edge, by cells of ``side`` × ``side`` px; the last column is empty."""

    cells: npt.NDArray[np.bool_]
    side: int
    shape: tuple[int, ...]

    def run_sums(self, starts: _Coordinates) -> _Ints:
        """How many pixels of each run are near an edge, int32 (M,); ``starts`` as :func:`boxes` has them."""
        (height, width), side = self.shape, np.int32(self.side)
        before = (np.cumsum(self.cells, axis=1, dtype=np.int32) - self.cells) * side  # px further left in the row
        of_row = before[:, width // side] + width % side * self.cells[:, width // side]
        of_rows = np.concatenate([[0], np.cumsum(np.repeat(of_row, side)[:height])]).astype(np.int32)
        rows, columns = starts
        cell_columns = columns // side
        cells = rows // side * np.int32(self.cells.shape[1]) + cell_columns
        inside = (columns - cell_columns * side) * self.cells.reshape(-1)[cells]
        total = of_rows[rows] + before.reshape(-1)[cells] + inside
        return np.asarray(np.diff(total, append=of_rows[-1:]), np.int32)


def edge_band(edges: Edges, shape: tuple[int, ...]) -> EdgeBand:
    """The pixels near an edge.

    A pixel is near if one beside an edge is less than d px away, in x and in y; d is :data:`BAND_WIDTH` of the
    diagonal, at least 1 px. Where d is 8 px or more this is found on cells of about d/4 px.

    Args:
        edges: of the map.
        shape: (H, W).
    """
    distance = max(1, round(BAND_WIDTH * math.hypot(*shape)))
    side = np.int32(max(1, distance // 4))
    cells = np.zeros((-(-shape[0] // side), shape[1] // side + 2), np.bool_)
    flat, width = cells.reshape(-1), np.int32(cells.shape[1])
    (rows, columns), (upper, shared) = edges.beside, edges.above
    cell_rows, cell_columns, one = rows // side * width, shared // side, np.int32(1)
    flat[cell_rows + columns // side] = flat[cell_rows + (columns - one) // side] = True
    flat[upper // side * width + cell_columns] = flat[(upper + one) // side * width + cell_columns] = True
    for axis in (0, 1):
        cells = _widen(cells, axis, (distance - 1) // int(side))
    cells[:, -(-shape[1] // side) :] = False
    return EdgeBand(cells, int(side), shape)


def _widen(cells: npt.NDArray[np.bool_], axis: int, distance: int) -> npt.NDArray[np.bool_]:
    """Every cell that has a true one at most ``distance`` away along the axis; in steps that triple."""
    reached = 0
    while reached < distance:
        step = min(2 * reached + 1, distance - reached)
        wider = cells.copy()
        _cut(wider, axis, slice(step, None))[...] |= _cut(cells, axis, slice(None, -step))
        _cut(wider, axis, slice(None, -step))[...] |= _cut(cells, axis, slice(step, None))
        cells, reached = wider, reached + step
    return cells


def _cut(array: npt.NDArray[Any], axis: int, part: slice) -> npt.NDArray[Any]:
    return array[part] if axis == 0 else array[:, part]
