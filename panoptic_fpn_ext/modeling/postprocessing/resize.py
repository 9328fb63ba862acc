"""The way of semantic logits to output size in one step.

detectron2 goes two: up to the network input (padding included), crop, then to the output size, bilinear both times.
Along an axis both are linear maps, so their product is one map, and each output position has at most three sources.

Shapes: C semantic classes, h, w logits, H, W output; n, N source and output positions along one axis.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..graph_capture import is_capturing_graph
from .arithmetic import multiplies_exactly
from .memory import OutputMemory

__all__ = ["MAX_TAPS", "Taps", "composed_taps", "sem_seg_logits_of_rows", "upsample_sem_seg_logits"]

MAX_TAPS = 3
"""Neighbours in the upsampled grid are at most one logit apart, so what they are made of spans three logits."""


# Logits of full width that are resized to full height at a time: they stay in a CPU's cache, in the same memory.
_TILE_VALUES = 2**20
_BLOCK_COLUMNS = 64
_COMBS = MAX_TAPS + 2
_TINY = torch.finfo(torch.float32).tiny


class Taps(NamedTuple):
    """Source positions of each output position along one axis.

    ``source``: int64 (N, 3), ascending; where there are fewer sources the last one is repeated. ``weight``: float32
    (N, 3), 0 at repetitions.
    """

    source: torch.Tensor
    weight: torch.Tensor


def composed_taps(length: int, stride: int, crop: int, out: int, device: torch.device | str) -> Taps:
    """Sources of ``out`` positions: ``length`` logits go up by ``stride``, are cut to ``crop`` and resized, bilinearly.

    The weights are what detectron2's two steps make of the unit vectors; so borders, crop edge and the rounding of
    coordinates are theirs.

    Args:
        length: n, logits along the axis, padding included.
        stride: network input pixels per logit, at least 1.
        crop: network input pixels without padding, at most ``length * stride``.
        out: N.
        device: where the taps are needed.
    """
    # Instead of all unit vectors, every fifth together: the sources of one position are neighbours.
    source = torch.arange(length, device=device)
    combs = (source % _COMBS == torch.arange(_COMBS, device=device)[:, None]).float()
    *weights, mean = _in_two_steps(torch.cat([combs, source[None].float()]), stride, crop, out)
    matrix = torch.stack(weights, dim=1)  # N, 5
    # Of the positions that a comb has, the source is the one near the mean of all.
    phase = torch.arange(_COMBS, device=device)
    near = (((mean[:, None] - phase) / _COMBS).round() * _COMBS).long() + phase
    order = near.masked_fill(matrix == 0, length).argsort(dim=1)[:, :MAX_TAPS]
    weight, index = matrix.gather(1, order), near.gather(1, order)
    return Taps(torch.where(weight == 0, index.masked_fill(weight == 0, -1).amax(dim=1, keepdim=True), index), weight)


def _in_two_steps(x: torch.Tensor, stride: int, crop: int, out: int) -> torch.Tensor:
    """Float (…, n) to (…, N): up by ``stride``, cut to ``crop``, to ``out``, as detectron2 does along each axis."""
    up = F.interpolate(x[None], scale_factor=float(stride), mode="linear")[0] if stride != 1 else x
    return F.interpolate(up[None, ..., :crop], size=out, mode="linear")[0]


def upsample_sem_seg_logits(
    logits: torch.Tensor,
    stride: int,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    memory: OutputMemory | None = None,
) -> torch.Tensor:
    """Logits at output size: up to the network input, padding off, then to the output, bilinear both times, at once.

    Args:
        logits: float (C, h, w), padding included, of any precision.
        stride: network input pixels per logit.
        image_size: (height, width) of the network input without padding.
        output_size: (H, W).
        memory: for the result.

    Returns:
        float32 (C, H, W), equal to the two steps up to rounding.
    """
    if is_capturing_graph():
        return _upsample_in_two_steps(logits, stride, image_size, output_size)
    num_classes, h, w = logits.shape
    rows, cols = (
        composed_taps(length, stride, crop, out, logits.device)
        for length, crop, out in zip((h, w), image_size, output_size, strict=True)
    )
    if logits.device.type != "cpu" or (logits.requires_grad and torch.is_grad_enabled()):
        x = _resize_rows(logits.float().transpose(1, 2), cols)  # C, W, h
        return _resize_rows(x.transpose(1, 2), rows)
    # 0 · ∞ and ∞ − ∞ are to stand where detectron2's arithmetic has them.
    if not torch.stack(logits.aminmax()).isfinite().all():
        return _upsample_in_two_steps(logits, stride, image_size, output_size)
    resized = (memory or OutputMemory()).empty("sem_seg", (num_classes, *output_size), torch.float32, logits.device)
    most = max(MAX_TAPS, _TILE_VALUES // (num_classes * output_size[1]))
    wide = logits.new_empty(num_classes * min(most, h), output_size[1], dtype=torch.float32)
    blocks = list(_blocks(cols)) if multiplies_exactly() else []
    for band, runs in _bands(rows, most):
        narrow = logits[:, band].float().flatten(0, 1)  # C * n, w
        for where, source, matrix in blocks:
            torch.mm(narrow[:, source], matrix, out=wide[: len(narrow), where])
        if not blocks:
            wide[: len(narrow)] = _in_two_steps(narrow, stride, image_size[1], output_size[1])
        _mix_rows(wide[: len(narrow)].view(num_classes, -1, output_size[1]), runs, resized)
    return resized


def _blocks(cols: Taps) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Some new columns at a time, the columns that they are made of, and the matrix (k, n) from these to those."""
    for start in range(0, len(cols.source), _BLOCK_COLUMNS):
        where = slice(start, min(start + _BLOCK_COLUMNS, len(cols.source)))
        sources = cols.source[where]
        first, last = int(sources[0, 0]), int(sources[-1].max())
        matrix = torch.zeros(where.stop - start, last + 1 - first, dtype=torch.float32)
        matrix.scatter_add_(1, sources - first, cols.weight[where])
        yield where, slice(first, last + 1), matrix.t().contiguous()


class _Run(NamedTuple):
    """Consecutive new rows that are made of the same ones.

    ``where``: the new rows. ``source``: two or three rows. ``weight``: float32 (n, 1), of the second in the mix of the
    first two, and of the third in the whole.
    """

    where: slice
    source: list[int]
    weight: tuple[torch.Tensor, ...]


def _runs(rows: Taps) -> list[_Run]:
    sources, used = rows.source.tolist(), (rows.weight[:, 2] != 0).tolist()
    keys = [source[: 2 + three] for source, three in zip(sources, used, strict=True)]
    starts = [k for k, key in enumerate(keys) if k == 0 or key != keys[k - 1]]
    where = [slice(start, stop) for start, stop in itertools.pairwise([*starts, len(keys)])]
    lengths = [one.stop - one.start for one in where]
    second, third = rows.weight[:, 1, None], rows.weight[:, 2, None]
    # Where the third is all there is, what the first two make does not count.
    weights = zip((second / (1 - third).clamp(min=_TINY)).split(lengths), third.split(lengths), strict=True)
    return [_Run(one, keys[one.start], weight) for one, weight in zip(where, weights, strict=True)]


def _bands(rows: Taps, most: int) -> Iterator[tuple[slice, list[_Run]]]:
    """At most so many source rows at a time, and the new rows that are made of them, counted from the first."""
    first, band = 0, list[_Run]()
    for run in _runs(rows):
        if band and run.source[-1] >= first + most:
            yield slice(first, first + most), band
            band = []
        first = first if band else run.source[0]
        band.append(run._replace(source=[source - first for source in run.source]))
    yield slice(first, first + most), band


def _mix_rows(x: torch.Tensor, runs: Sequence[_Run], result: torch.Tensor) -> None:
    """Write new rows (C, N, m) of rows (C, n, m); large ones are written once, without temporary copies."""
    row = x[:, None].unbind(dim=2)
    first_row, last_row = runs[0].where.start, runs[-1].where.stop
    parts = result[:, first_row:last_row].split([run.where.stop - run.where.start for run in runs], dim=1)
    for new, (_, (first, second, *third), (of_second, *of_third)) in zip(parts, runs, strict=True):
        torch.lerp(row[first], row[second], of_second, out=new)
        for source, weight in zip(third, of_third, strict=False):
            new.lerp_(row[source], weight)


def sem_seg_logits_of_rows(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int], rows: slice
) -> torch.Tensor:
    """Some rows of what :func:`upsample_sem_seg_logits` gives, whose other arguments these are; float32 (C, n, W)."""
    _, h, w = logits.shape
    all_rows = composed_taps(h, stride, image_size[0], output_size[0], logits.device)
    x = _resize_rows(logits.float(), Taps(all_rows.source[rows], all_rows.weight[rows])).transpose(1, 2)  # C, w, n
    columns = composed_taps(w, stride, image_size[1], output_size[1], logits.device)
    return _resize_rows(x, columns).transpose(1, 2)


def _upsample_in_two_steps(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> torch.Tensor:
    """As detectron2 does it; sizes may be tensors."""
    up = logits.float()[None]
    if stride != 1:
        up = F.interpolate(up, scale_factor=float(stride), mode="bilinear")
    return F.interpolate(up[..., : image_size[0], : image_size[1]], size=output_size, mode="bilinear")[0]


def _resize_rows(x: torch.Tensor, taps: Taps) -> torch.Tensor:
    """Float (C, n, m) to (C, N, m): each new row is a weighted sum of rows, which is what `embedding_bag` computes."""
    channels, length, width = x.shape
    offsets = torch.arange(channels, device=x.device)[:, None, None] * length
    index = (offsets + taps.source).flatten(0, 1)  # C * N, 3
    weight = taps.weight.repeat(channels, 1)
    rows = F.embedding_bag(index, x.reshape(channels * length, width), mode="sum", per_sample_weights=weight)
    return rows.view(channels, -1, width)
