"""Gaussian filtering over positions and colours of an image at once, in a compact grid.

With a bilateral kernel every pixel hears every other one, the louder the nearer it is in the image and in colour. Here
all pixels of a cell, some pixels wide and some colour levels deep, act together: their values are gathered at the
corners of the cell, spread over positions, then over colours, and read again. Only colours that occur have cells. With
cells of one pixel and one level the result is exact; larger ones are faster.

Shapes: H, W image, P = H·W pixels, C channels to filter, T positions of the grid, K colours, V vertices in use.
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

__all__ = ["EXACT", "BilateralGrid", "Cells"]

_NUM_LEVELS = 256
# Floats of the grid that are spread at a time.
_CHUNK_VALUES = 2**25
# Colours whose neighbours are searched at a time.
_CHUNK_COLORS = 256
# The largest cell, as a multiple of the kernel's standard deviation of positions.
_MAX_CELL = 1.25


class Cells(NamedTuple):
    """How fine a grid is.

    ``pixels``: edge of a cell in the image. ``levels``: its edge in each colour channel, of 256. ``reach``: colours
    further apart than so many standard deviations do not hear each other.
    """

    pixels: int
    levels: int
    reach: float


EXACT = Cells(1, 1, 6.0)
"""Every pixel and every colour has a cell of its own, and what is left out has a weight below 2e-8."""

_REACH = 3.5


class _SparseMatrix(NamedTuple):
    """Rows one after the other: column and weight of each entry, and the first entry of each row."""

    columns: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor

    def times(self, table: torch.Tensor) -> torch.Tensor:
        """Product with a dense (columns, C): a weighted sum of rows each, which is what `embedding_bag` computes."""
        weights = self.weights.to(table.dtype)
        return F.embedding_bag(self.columns, table, self.starts, mode="sum", per_sample_weights=weights)


class BilateralGrid:
    """The kernel exp(−|p_i − p_j|² / 2θ_α² − |I_i − I_j|² / 2θ_β²) of one image, normalised at every pixel.

    Attributes:
        size: (H, W).
        cells: how fine the grid is.
    """

    def __init__(
        self,
        image: torch.Tensor,
        theta_alpha: float,
        theta_beta: float,
        max_vertices: int = 2**20,
        cells: Cells | None = None,
    ) -> None:
        """
        Args:
            image: (3, H, W) of any type, values from 0 to 255, rounded to whole levels; on the device to filter on.
            theta_alpha: standard deviation of positions, px.
            theta_beta: standard deviation of colours, levels.
            max_vertices: largest T·K, what memory and time grow with. Cells are the finest that need no more; images
                up to 32×32 px are exact by this default.
            cells: take these.
        """
        self.size = (image.shape[1], image.shape[2])
        levels = image.detach().round().clamp(0, _NUM_LEVELS - 1).long().flatten(1).t()  # P, 3
        distinct, color_of = _distinct(levels)
        if cells is None:
            cells = _finest_cells(distinct, self.size, theta_alpha, theta_beta, max_vertices)
        self.cells = cells
        shared, merged = _distinct(distinct // cells.levels)
        color_of = merged[color_of]
        colors = _means(levels, color_of, len(shared))
        self._spreads = [_spread(_num_positions(n, cells.pixels), theta_alpha, cells, image.device) for n in self.size]
        self._num_colors = len(shared)
        self._num_vertices = math.prod(len(spread) for spread in self._spreads) * len(shared)
        self._read, self._used = _reading(self.size, cells.pixels, color_of, self._num_colors, self._num_vertices)
        self._gather = _transposed(self._read, len(self._used))
        # Pixels of a colour's cell are apart as far as this, squared and on average; their kernel is so much wider.
        variance = theta_beta**2 + (cells.levels**2 - 1) / 6
        neighbours = _neighbours(colors, shared[:, 0], math.sqrt(variance), cells)
        self._blend = _at_vertices(neighbours, self._used, self._num_colors)
        self._norm = self._filter_rows(torch.ones(len(levels), 1, device=image.device))[:, 0]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Filter float (C, H, W); differentiable."""
        return torch.cat([self._filter(part) for part in values.split(self.channels_at_a_time)])

    @property
    def channels_at_a_time(self) -> int:
        """How many channels keep temporary copies small."""
        return max(1, _CHUNK_VALUES // self._num_vertices)

    def _filter(self, values: torch.Tensor) -> torch.Tensor:
        rows = self._filter_rows(values.flatten(1).t().contiguous())
        return (rows.t() / self._norm.to(rows.dtype)).view_as(values)

    def _filter_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Float (P, C), without the norm."""
        vertices = rows.new_zeros(self._num_vertices, rows.shape[1])
        vertices.index_copy_(0, self._used, self._gather.times(rows))
        down, across = (spread.to(rows.dtype) for spread in self._spreads)
        spread = down @ vertices.view(len(down), -1)
        spread = across @ spread.view(len(down), len(across), -1)
        return self._read.times(self._blend.times(spread.view_as(vertices)))  # V, C on the way


def _distinct(colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct rows of int64 (N, 3), ordered by the first channel, and the place of each row among them."""
    r, g, b = colors.unbind(dim=1)
    codes, place = ((r * _NUM_LEVELS + g) * _NUM_LEVELS + b).unique(return_inverse=True)
    rows = [codes // _NUM_LEVELS**2, codes // _NUM_LEVELS % _NUM_LEVELS, codes % _NUM_LEVELS]
    return torch.stack(rows, dim=1), place


def _finest_cells(
    colors: torch.Tensor, size: tuple[int, int], theta_alpha: float, theta_beta: float, max_vertices: int
) -> Cells:
    """Smallest cells whose corners are no more than ``max_vertices``; they grow in both ways alike."""
    if size[0] * size[1] * len(colors) <= max_vertices:
        return EXACT
    for levels in range(1, _NUM_LEVELS):
        pixels = max(1, math.floor(theta_alpha * min(levels / theta_beta, _MAX_CELL)))
        num_positions = math.prod(_num_positions(n, pixels) for n in size)
        if num_positions * len(_distinct(colors // levels)[0]) <= max_vertices:
            break
    return Cells(pixels, levels, _REACH)


def _num_positions(length: int, cell: int) -> int:
    """Corners along an axis, so that every pixel has one before it (or at it) and, between two corners, one behind."""
    return (length - 1 + cell - 1) // cell + 1


def _means(levels: torch.Tensor, color_of: torch.Tensor, num_colors: int) -> torch.Tensor:
    """Float (K, 3): average of the pixels (P, 3) of each colour."""
    sums = torch.zeros(num_colors, 3, device=levels.device).index_add_(0, color_of, levels.float())
    return sums / torch.bincount(color_of, minlength=num_colors)[:, None]


def _spread(num_positions: int, theta: float, cells: Cells, device: torch.device) -> torch.Tensor:
    """Gaussian between the corners along an axis, float (n, n).

    To gather values at corners and to read them there widens a kernel, by (cell² − 1) / 6 in variance each, on average
    over the pixels of a cell. So the Gaussian in between is that much narrower.
    """
    variance = theta**2 - (cells.pixels**2 - 1) / 3
    position = torch.arange(num_positions, device=device) * float(cells.pixels)
    return torch.exp((position[:, None] - position) ** 2 / (-2 * variance))


def _reading(
    size: tuple[int, int], cell: int, color_of: torch.Tensor, num_colors: int, num_vertices: int
) -> tuple[_SparseMatrix, torch.Tensor]:
    """Bilinear weights of the corners around each pixel, at its colour: (P, V), and which vertices are the V."""
    (y, wy), (x, wx) = (_around(length, cell, color_of.device) for length in size)
    num_across = _num_positions(size[1], cell)
    position = y[:, None, :, None] * num_across + x[None, :, None, :]  # H, W, 2, 2
    weight = (wy[:, None, :, None] * wx[None, :, None, :]).reshape(-1, 4)
    vertex = position.reshape(-1, 4) * num_colors + color_of[:, None]
    counts = weight.count_nonzero(dim=1)
    vertex, weight = vertex[weight > 0], weight[weight > 0]
    is_used = torch.zeros(num_vertices, dtype=torch.bool, device=vertex.device)
    is_used[vertex] = True
    rank = is_used.cumsum(0, dtype=torch.int32) - 1
    return _SparseMatrix(rank[vertex], weight, _starts(counts)), is_used.nonzero()[:, 0]


def _around(length: int, cell: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners before and behind each pixel of an axis, int64 and float (n, 2): their numbers and weights."""
    pixel = torch.arange(length, device=device)
    before, offset = pixel // cell, (pixel % cell) / cell
    return torch.stack([before, before + 1], dim=1), torch.stack([1 - offset, offset], dim=1)


def _starts(counts: torch.Tensor) -> torch.Tensor:
    """Int32: first entry of rows of so many entries."""
    return (counts.cumsum(0) - counts).int()


def _transposed(matrix: _SparseMatrix, num_columns: int) -> _SparseMatrix:
    counts = torch.diff(matrix.starts, append=matrix.starts.new_tensor([len(matrix.columns)]))
    rows = torch.repeat_interleave(counts)
    order = matrix.columns.argsort(stable=True)
    per_column = torch.bincount(matrix.columns, minlength=num_columns)
    return _SparseMatrix(rows[order].int(), matrix.weights[order], _starts(per_column))


def _neighbours(colors: torch.Tensor, first: torch.Tensor, theta: float, cells: Cells) -> _SparseMatrix:
    """Gaussian between colours (K, 3), as far as they hear each other: (K, K).

    ``first``: the first channel in cells, ascending; so only colours in a window of it have to be looked at.
    """
    radius = cells.reach * theta
    margin = math.ceil(radius / cells.levels) + 1
    columns, weights, counts = [], [], []
    for rows in torch.arange(len(colors), device=colors.device).split(_CHUNK_COLORS):
        limits = torch.stack([first[rows[0]] - margin, first[rows[-1]] + margin + 1])
        start, stop = torch.searchsorted(first.contiguous(), limits).tolist()
        distances = torch.cdist(colors[rows], colors[start:stop], compute_mode="donot_use_mm_for_euclid_dist")
        near = distances <= radius
        columns.append(near.nonzero()[:, 1] + start)
        weights.append(torch.exp(distances[near] ** 2 / (-2 * theta**2)))
        counts.append(near.sum(dim=1))
    return _SparseMatrix(torch.cat(columns), torch.cat(weights), _starts(torch.cat(counts)))


def _at_vertices(neighbours: _SparseMatrix, used: torch.Tensor, num_colors: int) -> _SparseMatrix:
    """Rows of the colours' matrix for the vertices in use, each at its own position: (V, T·K)."""
    ends = torch.cat([neighbours.starts[1:], neighbours.starts.new_tensor([len(neighbours.columns)])])
    color = used % num_colors
    counts = (ends - neighbours.starts)[color]
    starts = _starts(counts)
    shift = neighbours.starts[color] - starts
    entry = torch.repeat_interleave(shift, counts)
    entry += torch.arange(len(entry), dtype=entry.dtype, device=entry.device)
    columns = neighbours.columns.int()[entry]
    columns += torch.repeat_interleave((used - color).int(), counts)
    return _SparseMatrix(columns, neighbours.weights[entry], starts)
