"""Semantic labels at output size, without logits at output size.

A resized logit is a convex combination of its sources. So where one class is the best at all sources of a pixel, it is
the best at the pixel too, and no arithmetic is needed; that is most of an image. The few other pixels get their
logits, in tiles.

Shapes: C semantic classes, h, w logits, H, W output, P pixels.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..graph_capture import is_capturing_graph
from .resize import Taps, composed_taps, upsample_sem_seg_logits

__all__ = ["label_free_pixels", "label_pixels", "row_strips"]

_STRIP_PIXELS = 2**20
# Logits computed at a time: large enough to hide the cost of a call, small enough for a CPU's cache.
_TILE_LOGITS = 2**21
# A GPU is the faster the more it gets at once.
_TILE_LOGITS_GPU = 2**24


class _Grid(NamedTuple):
    """A grid of pixels whose logits interpolate the network's: the taps of its rows and of its columns."""

    rows: Taps
    cols: Taps


def label_free_pixels(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], free: torch.Tensor
) -> torch.Tensor:
    """Best class of the pixels that are free, as the argmax of :func:`.upsample_sem_seg_logits` gives it.

    Two classes whose logits at a pixel differ by rounding only may change places. Logits that are not finite give some
    label.

    Args:
        logits: float (C, h, w), padding included, of any precision.
        stride: network input pixels per logit.
        image_size: (height, width) of the network input without padding.
        free: bool (H, W), the pixels to label.

    Returns:
        (H, W), uint8 or (where C needs it) int16: semantic ids, and C where ``free`` is False.
    """
    output_size = (free.shape[0], free.shape[1])
    table = logits.float().permute(1, 2, 0).contiguous()  # h, w, C
    labels = table.max(dim=2).indices.to(_label_dtype(len(logits)))
    output = _grid(logits, stride, image_size, output_size)
    if logits.device.type != "cpu":
        return _label_all(labels.dtype, output, table, free)
    if stride == 1 or free.numel() <= image_size[0] * image_size[1]:
        return _refine(labels, output, table, output, free)
    # The network input's grid on the way leaves a narrower seam between the classes undecided.
    between = _grid(logits, stride, image_size, image_size)
    labels = _refine(labels, between, table, between, free.new_ones(image_size))
    return _refine(labels, _grid(labels[None], 1, image_size, output_size), table, output, free)


def label_pixels(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> torch.Tensor:
    """Semantic ids of all pixels, int32 (H, W); arguments as of :func:`.upsample_sem_seg_logits`."""
    if is_capturing_graph():
        return upsample_sem_seg_logits(logits, stride, image_size, output_size).argmax(dim=0).int()
    everywhere = torch.ones(output_size, dtype=torch.bool, device=logits.device)
    return label_free_pixels(logits, stride, image_size, everywhere).int()


def row_strips(height: int, width: int) -> Iterator[slice]:
    """Consecutive rows of a map, so many at a time that temporary copies stay small."""
    step = max(1, _STRIP_PIXELS // width)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _label_dtype(num_classes: int) -> torch.dtype:
    """Smallest type for the labels and two marks: C for pixels that are not free, C + 1 for undecided ones."""
    return torch.uint8 if num_classes + 1 <= torch.iinfo(torch.uint8).max else torch.int16


def _grid(source: torch.Tensor, stride: int, image_size: tuple[int, int], size: tuple[int, int]) -> _Grid:
    """Grid of ``size`` over ``source``, (C, n, m) at ``stride``."""
    rows, cols = (
        _without_idle(composed_taps(length, stride, crop, out, source.device))
        for length, crop, out in zip(source.shape[1:], image_size, size, strict=True)
    )
    return _Grid(rows, cols)


def _without_idle(taps: Taps) -> Taps:
    """Two taps of each position where none has a third: a plain upsampling. A GPU is not asked."""
    is_plain = taps.weight.device.type == "cpu" and not taps.weight[:, 2].any()
    return Taps(taps.source[:, :2], taps.weight[:, :2]) if is_plain else taps


def _label_all(dtype: torch.dtype, grid: _Grid, table: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """What :func:`_refine` gives, from the logits of all pixels: a host that asks a GPU which are undecided, waits.

    Args:
        dtype: of the labels.
        grid: over the logits.
        table: float32 (h, w, C), logits.
        free: bool, of the grid's size: the pixels to label; the others get C.
    """
    height, width = free.shape
    labels = torch.empty(free.shape, dtype=dtype, device=free.device)
    rows = max(1, _TILE_LOGITS_GPU // (table.shape[2] * width))
    for start in range(0, height, rows):
        tile = slice(start, min(start + rows, height))
        y, x = torch.meshgrid(
            torch.arange(start, tile.stop, device=free.device), torch.arange(width, device=free.device), indexing="ij"
        )
        labels[tile] = _best_class(table, grid, y.flatten(), x.flatten()).view(y.shape)
    return labels.masked_fill_(~free, table.shape[2])


def _refine(labels: torch.Tensor, step: _Grid, table: torch.Tensor, target: _Grid, free: torch.Tensor) -> torch.Tensor:
    """Labels of a new grid, of the type of ``labels``.

    Args:
        labels: integer (n, m), of a grid that the new one interpolates.
        step: the new grid over ``labels``.
        table: float32 (h, w, C), logits.
        target: the new grid over the logits.
        free: bool, of the new grid's size: the pixels to label; the others get C.
    """
    taken, undecided = table.shape[2], table.shape[2] + 1
    by_column = _agreed(labels.t().contiguous(), step.cols.source, undecided).t().contiguous()
    refined = torch.empty(free.shape, dtype=labels.dtype, device=labels.device)
    for strip in row_strips(*free.shape):
        refined[strip] = _agreed(by_column, step.rows.source[strip], undecided).masked_fill_(~free[strip], taken)
        rows = Taps(target.rows.source[strip], target.rows.weight[strip])
        _decide(refined[strip], undecided, table, _Grid(rows, target.cols))
    return refined


def _agreed(labels: torch.Tensor, index: torch.Tensor, undecided: int) -> torch.Tensor:
    """Integer (n, m) to (N, m): the label that rows ``index`` (N, 2 or 3) have in common, or ``undecided``."""
    first, *others = (labels[rows] for rows in index.unbind(dim=1))
    differ = [first != one for one in others]
    return first.masked_fill_(functools.reduce(torch.logical_or, differ), undecided)


def _decide(labels: torch.Tensor, undecided: int, table: torch.Tensor, grid: _Grid) -> None:
    """Replace ``undecided`` in ``labels``, which lie on ``grid`` over the logits ``table``, float32 (h, w, C)."""
    where = labels == undecided
    tiles = where.nonzero().split(max(1, _TILE_LOGITS // table.shape[2]))
    found = [_best_class(table, grid, *pixels.unbind(dim=1)).to(labels.dtype) for pixels in tiles]
    labels.masked_scatter_(where, torch.cat(found))


def _best_class(table: torch.Tensor, grid: _Grid, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """int64 (P,): argmax of the logits at the pixels ``y``, ``x``, int64 (P,), of ``grid``."""
    _, w, num_classes = table.shape
    index = (grid.rows.source[y] * w)[:, :, None] + grid.cols.source[x][:, None, :]  # P, 3, 3 (or 2)
    weight = grid.rows.weight[y][:, :, None] * grid.cols.weight[x][:, None, :]
    logits = F.embedding_bag(
        index.flatten(1), table.view(-1, num_classes), mode="sum", per_sample_weights=weight.flatten(1)
    )  # P, C
    # On CPUs `max` is faster than `argmax`.
    return logits.max(dim=1).indices
