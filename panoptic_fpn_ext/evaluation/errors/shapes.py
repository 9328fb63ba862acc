"""Where the segments of a map lie: boxes, neighbours, and which runs of pixels are near an edge.

Shapes: H, W image size, R runs of one map, M runs of two, P pairs of labels; h, w rows and columns of cells.

Edges are found on a grid of square cells: pixels side by side are compared everywhere, pixels one above the other in
the first column of each cell. So a border is seen wherever it is as long as a cell, at a fraction of the cost of all
pixels. In images with a diagonal below 125 px a cell is one pixel.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..segments import SegmentMap

__all__ = ["Edges", "boxes", "cell_side", "coordinates", "find_edges", "id_map", "join_boxes", "near_edges", "touching"]

BAND_WIDTH = 0.02
"""Width of the band along edges where it is widest, of the diagonal, as in Boundary IoU (Cheng et al., CVPR 2021)."""

_Ints = npt.NDArray[np.int32]
_Bools = npt.NDArray[np.bool_]
_Labels = npt.NDArray[np.unsignedinteger]
_Positions = npt.NDArray[np.signedinteger]


def coordinates(positions: _Positions, width: int) -> tuple[_Ints, _Ints]:
    """Row and column, int32, of positions in a flattened map; faster than `np.divmod` and than int64."""
    positions = positions.astype(np.int32, copy=False)
    rows = positions // np.int32(width)
    return rows, positions - rows * np.int32(width)


def boxes(keys: npt.NDArray[np.intp], size: int, starts: _Positions, pixels: _Positions, width: int) -> _Ints:
    """The box around the runs of each key: [left, top, -right, -bottom], int32 (4, size), the last two exclusive.

    Args:
        keys: of the runs (M,), in [0, size); each occurs.
        size: how many keys there are.
        starts: where the runs start in the flattened map, ascending.
        pixels: lengths of the runs (M,), none 0.
        width: W.
    """
    starts, ends = starts.astype(np.int32), (starts + pixels).astype(np.int32)
    left = starts - starts // np.int32(width) * np.int32(width)
    sides = np.zeros((4, size), np.int32)
    sides[:2] = ends[-1]
    np.minimum.at(sides[0], keys, left)
    np.minimum.at(sides[1], keys, starts)
    np.maximum.at(sides[2], keys, left + pixels.astype(np.int32))
    np.maximum.at(sides[3], keys, ends)
    sides[0, sides[2] > width] = 0  # goes on in the next row
    sides[1] //= width
    sides[2] = -np.minimum(sides[2], width)
    sides[3] = -1 - (sides[3] - 1) // width
    return sides


def join_boxes(sides: _Ints, labels: npt.NDArray[np.intp], size: int) -> _Ints:
    """``bbox`` as COCO has it, [x, y, width, height] in px, int32 (size, 4), zeros without a pixel.

    Args:
        sides: :func:`boxes` of parts, (4, P).
        labels: whose parts these are, (P,).
        size: how many labels there are.
    """
    low = np.zeros((4, size), np.int32)
    low[:, labels] = 2**31 - 1
    for all_parts, side in zip(low, sides, strict=True):
        np.minimum.at(all_parts, labels, side)
    low[2:] = -low[2:] - low[:2]
    return low.T


def id_map(segments: SegmentMap) -> npt.NDArray[np.int64]:
    """Segment ids (H, W), int64; -1 where an id is not listed."""
    labels = np.repeat(segments.labels, np.diff(segments.starts, append=segments.shape[0] * segments.shape[1]))
    return np.append(segments.ids, -1)[labels].reshape(segments.shape)


def cell_side(shape: tuple[int, ...]) -> int:
    """Side of the cells of an image (H, W), px: half of the width of the band along edges, at least 1."""
    return max(1, math.ceil(BAND_WIDTH * math.hypot(*shape) / 2))


class Edges(NamedTuple):
    """Where neighbouring pixels have different labels.

    ``runs``: labels of the map's own runs, which start at ``rows``, ``columns`` and in the first cell, of its row,
    whose first column is not before (``cells``). ``sampled``: labels (H, w) in the first column of each cell.
    ``above``: flat indices of those that differ from the one below.
    """

    runs: _Labels
    rows: _Ints
    columns: _Ints
    cells: _Ints
    sampled: _Labels
    above: npt.NDArray[np.intp]


def find_edges(segments: SegmentMap) -> Edges:
    """The edges of a map, see the module; the image's border is none."""
    (height, width), side = segments.shape, cell_side(segments.shape)
    changes = np.empty(len(segments.labels), np.bool_)
    changes[0] = True
    np.not_equal(segments.labels[1:], segments.labels[:-1], out=changes[1:])
    own = changes.nonzero()[0]  # others start because another map changes
    labels = segments.labels.take(own)
    rows, columns = coordinates(segments.starts.take(own), width)
    cells, number = (columns + np.int32(side - 1)) // np.int32(side), -(-width // side)
    firsts = np.empty(len(own) + 1, np.int32)
    np.add(rows * np.int32(number), cells, out=firsts[:-1])
    firsts[-1] = height * number
    sampled = labels.repeat(firsts[1:] - firsts[:-1])
    above = (sampled[number:] != sampled[:-number]).nonzero()[0]
    return Edges(labels, rows, columns, cells, sampled.reshape(height, number), above)


def touching(edges: Edges, things: _Bools) -> _Bools:
    """By label, which things are beside or above another one; ``things``: bool by label."""
    result = np.zeros(len(things), np.bool_)
    if np.count_nonzero(things) < 2:
        return result
    of_runs = things.take(edges.runs)
    right = (of_runs[1:] & of_runs[:-1]).nonzero()[0] + 1
    right = right[edges.columns.take(right) != 0]  # else the run before ends the row above
    result[edges.runs.take(right)] = result[edges.runs.take(right - 1)] = True
    sampled = edges.sampled.reshape(-1)
    first, second = sampled.take(edges.above), sampled.take(edges.above + edges.sampled.shape[1])
    both = (things.take(first) & things.take(second)).nonzero()[0]
    result[first.take(both)] = result[second.take(both)] = True
    return result


def near_edges(edges: Edges, shape: tuple[int, ...], positions: _Positions) -> _Bools:
    """Which pixels are near an edge: it is in their cell or in one of the eight cells around it.

    An edge is where its left or upper pixel is. So near is within one side of a cell at least and two at most: half of
    :data:`BAND_WIDTH` of the diagonal, and all of it.

    Args:
        edges: of the map.
        shape: (H, W).
        positions: of the pixels in the flattened map (M,).
    """
    side, (height, width) = np.int32(cell_side(shape)), edges.sampled.shape
    rows, columns = coordinates(edges.above, width)
    width += 1  # an empty column keeps the ends of a row from the next one
    cells = np.zeros(-(-height // side) * width, np.bool_)
    cells[(edges.rows // side * np.int32(width) + edges.cells - np.int32(1)).astype(np.intp)] = True
    cells[(rows // side * np.int32(width) + columns).astype(np.intp)] = True
    cells[width - 1 :: width] = False  # runs that start in the first column have no pixel left of them
    for step in (1, width):
        near = cells.copy()
        near[step:] |= cells[:-step]
        near[:-step] |= cells[step:]
        cells = near
    rows, columns = coordinates(positions, shape[1])
    return cells.take((rows // side * np.int32(width) + columns // side).astype(np.intp))
