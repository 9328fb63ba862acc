"""Masks from their boxes to output size, with the arithmetic of detectron2's `paste_masks_in_image`, inside the boxes.

Shapes: K detections, M mask side, H, W output.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

from ..graph_capture import is_capturing_graph
from .arithmetic import multiplies_exactly
from .memory import OutputMemory

__all__ = ["Window", "paste_each", "paste_mask", "paste_masks", "paste_probs", "paste_windows"]

Window = tuple[slice, slice]
"""Rows and columns of a map."""

# What is sampled at a time stays in a CPU's cache.
_TILE_PIXELS = 2**19
# Of a mask's side: so far two ways to sample a probability are apart at most, from the rounding of positions.
_ROUNDING = 1e-6
# Positions that a mask is sampled at.
_AT_ONCE = 256


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


@torch.no_grad()
def paste_each(
    masks: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], windows: Sequence[Window], threshold: float
) -> Iterator[torch.Tensor]:
    """What :func:`paste_mask` gives of each mask and box; on a CPU several times as fast."""
    is_plain = is_capturing_graph() or not multiplies_exactly()
    on_cpu = len(windows) and masks[0].device.type == "cpu" and boxes[0].dtype == torch.float32
    stacked = torch.stack(tuple(masks)).float() if on_cpu and not is_plain else None
    # 0 · ∞ would spread in a product of matrices.
    if stacked is not None and stacked.isfinite().all():
        yield from _PasteOnCPU(stacked, torch.stack(tuple(boxes)), windows, threshold).each()
        return
    for mask, box, window in zip(masks, boxes, windows, strict=True):
        yield paste_mask(mask, box, window, threshold)


class _PasteOnCPU:
    """Mixes columns, then rows, and lets `grid_sample` decide where rounding could; P pixels of windows at a time."""

    def __init__(self, masks: torch.Tensor, boxes: torch.Tensor, windows: Sequence[Window], threshold: float) -> None:
        self.masks, self.threshold = masks, threshold
        self.shapes = [_shape(window) for window in windows]
        heights, widths = map(list, zip(*self.shapes, strict=True))
        y, x = (_all_positions([w[axis] for w in windows], boxes[:, 1 - axis :: 2]) for axis in (0, 1))
        self.y, self.x = y, x
        # Where those of each mask begin.
        self.starts = torch.tensor([[0, 0], *self.shapes[:-1]]).cumsum(0)
        side = masks.shape[1]
        columns, of_column = _neighbours(x, side)
        columns += side * torch.arange(len(masks)).repeat_interleave(torch.tensor(widths))[:, None]
        table = masks.transpose(1, 2).reshape(-1, side)
        wide = F.embedding_bag(columns, table, mode="sum", per_sample_weights=of_column)
        self.wide = wide.split(widths)  # m, M each
        rows, of_row = _neighbours(y, side)
        of_rows = torch.zeros(len(y), side, dtype=torch.float32).scatter_add_(1, rows, of_row)
        self.of_rows = of_rows.split(heights)  # n, M each

    def each(self) -> Iterator[torch.Tensor]:
        """The masks, bool (n, m)."""
        for group in _groups([height * width for height, width in self.shapes]):
            shapes = [self.shapes[k] for k in group]
            pasted = torch.empty(sum(height * width for height, width in shapes), dtype=torch.bool)
            if len(group) > 1:
                self._paste([(k, slice(0, self.shapes[k][0])) for k in group], pasted)
            else:  # it may be large
                (k,), ((height, width),) = group, shapes
                step = max(1, _TILE_PIXELS // width)
                for start in range(0, height, step):
                    rows = slice(start, min(start + step, height))
                    self._paste([(k, rows)], pasted[rows.start * width : rows.stop * width])
            parts = pasted.split([height * width for height, width in shapes])
            yield from (part.view(shape) for part, shape in zip(parts, shapes, strict=True))

    def _paste(self, pieces: Sequence[tuple[int, slice]], pasted: torch.Tensor) -> None:
        """Some rows of some masks, one after the other, into bool (P,)."""
        probs = torch.empty(len(pasted), dtype=torch.float32)
        parts = probs.split([(rows.stop - rows.start) * self.shapes[k][1] for k, rows in pieces])
        for (k, rows), part in zip(pieces, parts, strict=True):
            torch.mm(self.of_rows[k][rows], self.wide[k].t(), out=part.view(-1, self.shapes[k][1]))
        torch.ge(probs.sub_(self.threshold), 0, out=pasted)
        near = (probs.abs_() < _ROUNDING * self.masks.shape[1]).nonzero()[:, 0]
        if not len(near):
            return
        pasted[near] = self._exact(pieces, torch.tensor([len(part) for part in parts]), near) >= self.threshold

    def _exact(self, pieces: Sequence[tuple[int, slice]], lengths: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Probabilities (N,) as `grid_sample` has them, of pixels ``near`` int64 (N,), ascending, of pieces."""
        piece = torch.searchsorted(lengths.cumsum(0), near, right=True)
        counts = piece.bincount(minlength=len(pieces))
        masks, first_row = torch.tensor([(k, rows.start) for k, rows in pieces]).unbind(dim=1)
        at = near - (lengths.cumsum(0) - lengths)[piece]
        width = torch.tensor(self.shapes)[masks[piece], 1]
        y, x = self.starts[masks[piece]].unbind(dim=1)
        y, x = y + first_row[piece] + at // width, x + at % width
        # A batch of masks, with so many positions each at most; a mask comes as often as it takes.
        times = counts.div(_AT_ONCE, rounding_mode="floor") + 1
        number = torch.arange(len(near)) - (counts.cumsum(0) - counts)[piece]
        row, column = (times.cumsum(0) - times)[piece] + number // _AT_ONCE, number % _AT_ONCE
        grid = torch.zeros(int(times.sum()), min(_AT_ONCE, int(counts.max())), 2, dtype=torch.float32)
        grid[row, column] = torch.stack([self.x[x], self.y[y]], dim=1)
        of_row = self.masks[masks.repeat_interleave(times), None]
        return F.grid_sample(of_row, grid[:, None], align_corners=False)[row, 0, 0, column]


def _groups(areas: Sequence[int]) -> Iterator[list[int]]:
    """Consecutive windows that have at most so many pixels together as are pasted at a time; larger ones are alone."""
    group, filled = list[int](), 0
    for k, area in enumerate(areas):
        if group and filled + area > _TILE_PIXELS:
            yield group
            group, filled = [], 0
        group.append(k)
        filled += area
    yield group


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
