"""The way of semantic logits to output size in one step.

detectron2 goes two: up to the network input (padding included), crop, then to the output size, bilinear both times.
Along an axis both are linear maps, so their product is one map, and each output position has at most three sources.

Shapes: C semantic classes, h, w logits, H, W output; n, N source and output positions along one axis.
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..graph_capture import is_capturing_graph
from .memory import OutputMemory

__all__ = ["MAX_TAPS", "Taps", "composed_taps", "sem_seg_logits_of_rows", "upsample_sem_seg_logits"]

MAX_TAPS = 3
"""Neighbours in the upsampled grid are at most one logit apart, so what they are made of spans three logits."""


# What is resized at a time stays in a CPU's cache, and its memory is used again.
_TILE_VALUES = 2**20


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
    unit_vectors = torch.eye(length, device=device)[None]  # 1, n, n
    up = F.interpolate(unit_vectors, scale_factor=float(stride), mode="linear") if stride != 1 else unit_vectors
    matrix = F.interpolate(up[..., :crop], size=out, mode="linear")[0].t()  # N, n
    is_source = (matrix != 0).byte()
    first = is_source.argmax(dim=1, keepdim=True)
    last = first + is_source.sum(dim=1, keepdim=True) - 1
    index = first + torch.arange(MAX_TAPS, device=device)
    weight = matrix.gather(1, index.clamp(max=length - 1)).masked_fill(index > last, 0.0)
    return Taps(torch.minimum(index, last), weight)


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
    resized = (memory or OutputMemory()).empty("sem_seg", (num_classes, *output_size), torch.float32, logits.device)
    num_at_once = max(1, _TILE_VALUES // math.prod(output_size))
    step = max(1, _TILE_VALUES // output_size[1])
    for start in range(0, num_classes, num_at_once):
        classes = slice(start, start + num_at_once)
        x = _resize_rows(logits[classes].float().transpose(1, 2), cols).transpose(1, 2).contiguous()  # n, h, W
        for top in range(0, output_size[0], step):
            tile = slice(top, top + step)
            resized[classes, tile] = _resize_rows(x, Taps(rows.source[tile], rows.weight[tile]))
    return resized


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
