"""Where the segments of a map lie: boxes, neighbours, and how many pixels of a run are near an edge.

Shapes: H, W image size, R runs of one map, M runs of two, P pairs of labels, E pairs of pixels with an edge between.
Rows and columns are int32, which is faster than int64; an image has less than 2³¹ pixels.

Edges are found on a grid of square cells of ``cell_side`` px: pixels side by side are compared everywhere, pixels one
above the other in the first column of each cell. So a border is seen wherever it is as long as a cell, at a fraction
of the cost of all pixels; in images with a diagonal below 375 px a cell is one pixel.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..segments import SegmentMap

__all__ = ["EdgeBand", "Edges", "boxes", "cell_side", "coordinates", "edge_band", "find_edges", "id_map", "join_boxes", "touching"]

BAND_WIDTH = 0.02
"""Width of the band along edges, of the image's diagonal, as Boundary IoU has it (Cheng et al., CVPR 2021)."""

_Ints = npt.NDArray[np.int32]
_Bools = npt.NDArray[np.bool_]
_Labels = npt.NDArray[np.unsignedinteger]
_Coordinates = tuple[_Ints, _Ints]


def coordinates(positions: npt.NDArray[np.signedinteger], width: int) -> _Coordinates:
    """Row and column of positions in a flattened map; faster than `np.divmod`."""
    positions = positions.astype(np.int32, copy=False)
    rows = positions // np.int32(width)
    return rows, positions - rows * np.int32(width)


def boxes(
    keys: npt.NDArray[np.intp], size: int, starts: _Coordinates, pixels: npt.NDArray[np.intp], width: int
) -> _Ints:
    """The box around the runs of each key: [left, top, -right, -bottom], int32 (4, size), the last two exclusive.

    Args:
        keys: of the runs (M,), in [0, size); each occurs.
        size: how many keys there are.
        starts: rows and columns where the runs start, row by row.
        pixels: lengths of the runs (M,), none 0.
        width: W.
    """
    top, left = starts
    end = left + pixels.astype(np.int32)  # beyond the border where a run goes on in the next row
    low, high = np.full((2, size), max(width, int(top[-1])), np.int32), np.zeros((2, size), np.int32)
    np.minimum.at(low[0], keys, left)
    np.minimum.at(low[1], keys, top)
    np.maximum.at(high[0], keys, end)
    np.maximum.at(high[1], keys, top)
    if (high[0] > width).any():
        several = np.flatnonzero(end > width)
        low[0, keys[several]] = 0
        np.maximum.at(high[1], keys[several], top[several] + (end[several] - 1) // np.int32(width))
        np.minimum(high[0], width, out=high[0])
    return np.concatenate([low, -high[:1], -1 - high[1:]])


def join_boxes(sides: _Ints, labels: npt.NDArray[np.intp], size: int) -> _Ints:
    """``bbox`` as COCO has it, [x, y, width, height] in px, int32 (size, 4), zeros without a pixel.

    Args:
        sides: :func:`boxes` of parts, (4, P).
        labels: whose parts these are, (P,).
        size: how many labels there are.
    """
    low = np.zeros((4, size), np.int32)
    low[:, labels] = np.iinfo(np.int32).max
    for all_parts, side in zip(low, sides, strict=True):
        np.minimum.at(all_parts, labels, side)
    low[2:] = -low[2:] - low[:2]
    return low.T


def id_map(segments: SegmentMap) -> npt.NDArray[np.int64]:
    """Segment ids (H, W), int64; -1 where an id is not listed."""
    labels = np.repeat(segments.labels, np.diff(segments.starts, append=segments.shape[0] * segments.shape[1]))
    return np.append(segments.ids, -1)[labels].reshape(segments.shape)


def _band_distance(shape: tuple[int, ...]) -> int:
    return max(1, round(BAND_WIDTH * math.hypot(*shape)))


def cell_side(shape: tuple[int, ...]) -> int:
    """Side of the cells of an image (H, W), px: about a quarter of the width of the band along edges."""
    return max(1, _band_distance(shape) // 4)


class Edges(NamedTuple):
    """Where neighbouring pixels have different labels.

    ``runs``: labels, and ``starts`` rows and columns, of the map's own runs. ``beside``: indices of those whose first
    pixel stands right of another one. ``sampled``: labels (H, columns of cells) in the first column of each cell.
    ``above``: bool (H - 1, columns of cells), whether a row and the next one differ there.
    """

    runs: _Labels
    starts: _Coordinates
    beside: npt.NDArray[np.intp]
    sampled: _Labels
    above: _Bools


def find_edges(segments: SegmentMap) -> Edges:
    """The edges of a map, see the module; the image's border is none."""
    (height, width), side = segments.shape, cell_side(segments.shape)
    changes = np.empty(len(segments.labels), np.bool_)
    changes[0] = True
    np.not_equal(segments.labels[1:], segments.labels[:-1], out=changes[1:])
    own = np.flatnonzero(changes)  # others end because another map changes
    labels = segments.labels[own]
    rows, columns = coordinates(segments.starts[own], width)
    number = -(-width // side)
    firsts = np.empty(len(own) + 1, np.int32)
    firsts[:-1] = rows * np.int32(number) + (columns + np.int32(side - 1)) // np.int32(side)
    firsts[-1] = height * number
    sampled = np.repeat(labels, firsts[1:] - firsts[:-1]).reshape(height, number)
    # At a column of 0 the pixel before is the last one of the row above.
    return Edges(labels, (rows, columns), np.flatnonzero(columns), sampled, sampled[1:] != sampled[:-1])


def touching(edges: Edges, things: _Bools) -> _Bools:
    """By label, which things are beside or above another one; ``things``: bool by label."""
    result = np.zeros(len(things), np.bool_)
    if np.count_nonzero(things) < 2:
        return result
    is_thing, sampled, upper = things[edges.runs], edges.sampled.reshape(-1), np.flatnonzero(edges.above)
    right = edges.beside[is_thing[edges.beside] & is_thing[edges.beside - 1]]
    result[edges.runs[right]] = result[edges.runs[right - 1]] = True
    first, second = sampled[upper], sampled[upper + edges.sampled.shape[1]]
    both = np.flatnonzero(things[first] & things[second])
    result[first[both]] = result[second[both]] = True
    return result


class EdgeBand(NamedTuple):
    """Pixels near an edge, by cells of ``side`` × ``side`` px; the columns right of the image are empty."""

    cells: _Bools
    side: int
    shape: tuple[int, ...]

    def run_sums(self, starts: _Coordinates) -> _Ints:
        """How many pixels of each run are near an edge, int32 (M,); ``starts``: rows and columns, row by row."""
        (height, width), side = self.shape, np.int32(self.side)
        before = np.cumsum(self.cells, axis=1, dtype=np.int32)  # px further left in the row
        before -= self.cells
        before *= side
        of_row = before[:, width // side] + width % side * self.cells[:, width // side]
        of_rows = np.zeros(height + 1, np.int32)
        np.cumsum(np.repeat(of_row, side)[:height], out=of_rows[1:])
        rows, columns = starts
        cell_columns = columns // side
        cells = (rows // side * np.int32(self.cells.shape[1]) + cell_columns).astype(np.intp)
        sums = np.empty(len(rows) + 1, np.int32)
        total = sums[:-1]
        np.subtract(columns, cell_columns * side, out=total)
        total *= self.cells.reshape(-1)[cells]
        total += before.reshape(-1)[cells]
        total += of_rows[rows]
        sums[-1] = of_rows[-1]
        return sums[1:] - total


def edge_band(edges: Edges, shape: tuple[int, ...]) -> EdgeBand:
    """The pixels near an edge.

    A pixel is near if its cell is at most (d - 1) // side cells, in x and in y, from one that has a pixel beside an
    edge; d is :data:`BAND_WIDTH` of the diagonal, at least 1 px.

    Args:
        edges: of the map.
        shape: (H, W).
    """
    side, number = cell_side(shape), edges.sampled.shape[1]
    reach = (_band_distance(shape) - 1) // side
    height, width = -(-shape[0] // side), number + max(1, reach)  # nothing reaches from one row into the next
    differs = np.zeros((height * side, number), np.bool_)
    differs[: shape[0] - 1] = edges.above
    cells = np.zeros((height, width), np.bool_)
    differs.reshape(height, side, number).any(axis=1, out=cells[:, :number])
    cells[1:, :number] |= differs[side - 1 :: side][: height - 1]  # the lower pixel may be of the next cell
    rows, columns = (of_run[edges.beside] for of_run in edges.starts)
    flat, places = cells.reshape(-1), rows // np.int32(side) * np.int32(width)
    flat[places + columns // np.int32(side)] = True
    flat[places + (columns - np.int32(1)) // np.int32(side)] = True
    for step in (1, width):
        flat = _widen(flat, reach, step)
    cells = flat.reshape(height, width)
    cells[:, number:] = False
    return EdgeBand(cells, side, shape)


def _widen(cells: _Bools, distance: int, stride: int) -> _Bools:
    """Every cell that has a true one at most ``distance`` strides away; in steps that triple."""
    reached = 0
    while reached < distance:
        step = min(2 * reached + 1, distance - reached)
        wider = cells.copy()
        wider[step * stride :] |= cells[: -step * stride]
        wider[: -step * stride] |= cells[step * stride :]
        cells, reached = wider, reached + step
    return cells
