"""Masks from their boxes to output size, with the arithmetic of detectron2's `paste_masks_in_image`, inside the boxes.

Shapes: K detections, M mask side, H, W output.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

from .memory import OutputMemory

__all__ = ["Window", "paste_each", "paste_mask", "paste_masks", "paste_probs", "paste_windows"]

Window = tuple[slice, slice]
"""Rows and columns of a map."""

# What is sampled at a time stays in a CPU's cache.
_TILE_PIXELS = 2**18
# Of a mask's side: so far two ways to sample a probability are apart at most, from the rounding of positions.
_ROUNDING = 1e-6


def paste_windows(boxes: Sequence[Sequence[float]], output_size: tuple[int, int]) -> list[Window]:
    """Where masks can have pixels: their boxes and a pixel around, within the output.

    Args:
        boxes: (K, 4), XYXY in output pixels, clipped to the output and not empty; on the host.
        output_size: (H, W).
    """
    height, width = output_size
    return [
        (
            slice(max(math.floor(y0) - 1, 0), min(math.ceil(y1) + 1, height)),
            slice(max(math.floor(x0) - 1, 0), min(math.ceil(x1) + 1, width)),
        )
        for x0, y0, x1, y1 in boxes
    ]


@torch.no_grad()
def paste_mask(mask: torch.Tensor, box: torch.Tensor, window: Window, threshold: float) -> torch.Tensor:
    """One mask at output size.

    Args:
        mask: float (M, M), probabilities inside the box.
        box: float (4,), XYXY in output pixels.
        window: from :func:`paste_windows`.
        threshold: probability from which a pixel belongs to the mask.

    Returns:
        bool, of the window's shape.
    """
    pasted = torch.empty(_shape(window), dtype=torch.bool, device=mask.device)
    for tile, probs in _sampled(mask, box, window):
        torch.ge(probs, threshold, out=pasted[tile])
    return pasted


def paste_each(
    masks: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], windows: Sequence[Window], threshold: float
) -> Iterator[torch.Tensor]:
    """What :func:`paste_mask` gives of each mask and box; on a CPU several times as fast."""
    if len(windows) and masks[0].device.type == "cpu":
        yield from _paste_on_cpu(masks, boxes, windows, threshold)
        return
    for mask, box, window in zip(masks, boxes, windows, strict=True):
        yield paste_mask(mask, box, window, threshold)


@torch.no_grad()
def _paste_on_cpu(
    each_mask: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], windows: Sequence[Window], threshold: float
) -> Iterator[torch.Tensor]:
    """Mix columns, then rows, and let `grid_sample` decide where rounding could."""
    masks, corners = torch.stack(tuple(each_mask)).float(), torch.stack(tuple(boxes))
    side, numbers = masks.shape[1], torch.arange(len(masks))
    heights, widths = ([pixels.stop - pixels.start for pixels in axis] for axis in zip(*windows, strict=True))
    y, x = (_all_positions([w[axis] for w in windows], corners[:, 1 - axis :: 2]) for axis in (0, 1))
    columns, of_column = _neighbours(x, side)
    columns += side * numbers.repeat_interleave(torch.tensor(widths))[:, None]
    table = masks.transpose(1, 2).reshape(-1, side)
    wide = F.embedding_bag(columns, table, mode="sum", per_sample_weights=of_column).split(widths)  # m, M each
    rows, of_row = (each.split(heights) for each in _neighbours(y, side))
    y_of, x_of = y.split(heights), x.split(widths)
    for k, mask in enumerate(masks):
        across, pasted = wide[k].t().contiguous(), torch.empty(heights[k], widths[k], dtype=torch.bool)
        step = max(1, _TILE_PIXELS // widths[k])
        for start in range(0, heights[k], step):
            tile = slice(start, start + step)
            probs = F.embedding_bag(rows[k][tile], across, mode="sum", per_sample_weights=of_row[k][tile])
            torch.ge(probs.sub_(threshold), 0, out=pasted[tile])
            near = (probs.abs_().amin(dim=1) < _ROUNDING * side).nonzero()[:, 0]
            if len(near):  # to look for pixels in all rows is slow
                i, j = (probs[near] < _ROUNDING * side).nonzero().unbind(dim=1)
                i = near[i]
                grid = torch.stack([x_of[k][j], y_of[k][tile][i]], dim=1)
                exact = F.grid_sample(mask[None, None], grid[None, None], align_corners=False)[0, 0, 0]
                pasted[tile][i, j] = exact >= threshold
        yield pasted


def _all_positions(pixels: Sequence[slice], ends: torch.Tensor) -> torch.Tensor:
    """:func:`_sample_positions` of many boxes, whose ends are (K, 2), one after the other."""
    first, stop = torch.tensor([(one.start, one.stop) for one in pixels]).unbind(dim=1)
    lengths = stop - first
    shift, start, end = (each.repeat_interleave(lengths) for each in (stop - lengths.cumsum(0), *ends.unbind(dim=1)))
    centres = (torch.arange(len(shift)) + shift).float() + 0.5
    return (centres - start) / (end - start) * 2 - 1


def _neighbours(position: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of a mask around positions (n,) as `grid_sample` has them, int64 (n, 2), and weights, 0 beyond the mask."""
    place = (position + 1) * (side / 2) - 0.5
    before = place.floor()
    behind = place - before
    source = torch.stack([before, before + 1], dim=1).long()
    weight = torch.stack([1 - behind, behind], dim=1)
    weight.masked_fill_((source < 0) | (source >= side), 0)
    return source.clamp_(0, side - 1), weight


def paste_probs(mask: torch.Tensor, box: torch.Tensor, window: Window) -> torch.Tensor:
    """As :func:`paste_mask`, with probabilities, float32 of the window's shape; differentiable in the mask."""
    return torch.cat([probs for _, probs in _sampled(mask, box, window)])


def _sampled(mask: torch.Tensor, box: torch.Tensor, window: Window) -> Iterator[tuple[slice, torch.Tensor]]:
    """Probabilities in a window, some of its rows at a time."""
    rows, cols = window
    x0, y0, x1, y1 = box.unbind()
    y = _sample_positions(rows, y0, y1)
    x = _sample_positions(cols, x0, x1)
    step = max(1, _TILE_PIXELS // len(x))
    for start in range(0, len(y), step):
        tile = slice(start, min(start + step, len(y)))
        shape = (tile.stop - start, len(x))
        grid = torch.stack([x.expand(shape), y[tile, None].expand(shape)], dim=2)
        yield tile, F.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0]


def _shape(window: Window) -> tuple[int, int]:
    rows, cols = window
    return rows.stop - rows.start, cols.stop - cols.start


def paste_masks(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    output_size: tuple[int, int],
    threshold: float = 0.5,
    windows: Sequence[Window] | None = None,
    memory: OutputMemory | None = None,
) -> torch.Tensor:
    """All masks at output size, the same pixels as detectron2's `paste_masks_in_image`.

    Args:
        masks: float (K, M, M), probabilities inside the boxes.
        boxes: float (K, 4), XYXY in output pixels, clipped to the output and not empty.
        output_size: (H, W).
        threshold: probability from which a pixel belongs to a mask.
        windows: of the boxes, from :func:`paste_windows`; without them the host reads the boxes.
        memory: for the result.

    Returns:
        bool (K, H, W).
    """
    pasted = (memory or OutputMemory()).empty("masks", (len(masks), *output_size), torch.bool, masks.device).zero_()
    windows = paste_windows(boxes.tolist(), output_size) if windows is None else windows
    for target, window, mask in zip(
        pasted, windows, paste_each(list(masks), list(boxes), windows, threshold), strict=True
    ):
        target[window] = mask
    return pasted


def _sample_positions(pixels: slice, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Centres of the pixels for `grid_sample`, -1 and 1 are the edges of the box; rounded as detectron2's."""
    centres = torch.arange(pixels.start, pixels.stop, device=start.device, dtype=torch.float32) + 0.5
    return (centres - start) / (end - start) * 2 - 1
