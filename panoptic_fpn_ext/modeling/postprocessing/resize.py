"""The way of semantic logits to output size in one step.

detectron2 goes two: up to the network input (padding included), crop, then to the output size, bilinear both times.
Along an axis both are linear maps, so their product is one map, and each output position has at most three sources.

Shapes: C semantic classes, h, w logits, H, W output; n, N source and output positions along one axis.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..graph_capture import is_capturing_graph

__all__ = ["MAX_TAPS", "Taps", "composed_taps", "sem_seg_logits_of_rows", "upsample_sem_seg_logits"]

MAX_TAPS = 3
"""Neighbours in the upsampled grid are at most one logit apart, so what they are made of spans three logits."""


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
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> torch.Tensor:
    """Logits at output size: up to the network input, padding off, then to the output, bilinear both times, at once.

    Args:
        logits: float (C, h, w), padding included, of any precision.
        stride: network input pixels per logit.
        image_size: (height, width) of the network input without padding.
        output_size: (H, W).

    Returns:
        float32 (C, H, W), equal to the two steps up to rounding.
    """
    if is_capturing_graph():
        return _upsample_in_two_steps(logits, stride, image_size, output_size)
    _, h, w = logits.shape
    x = logits.float().transpose(1, 2)  # C, w, h
    x = _resize_rows(x, composed_taps(w, stride, image_size[1], output_size[1], x.device))  # C, W, h
    return _resize_rows(x.transpose(1, 2), composed_taps(h, stride, image_size[0], output_size[0], x.device))


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
