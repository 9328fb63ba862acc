"""The paper's merging procedure (Panoptic FPN, section 3) as a graph: loops over instances and over strips of rows.

The arithmetic is that of :class:`~panoptic_fpn_ext.modeling.HeuristicCombiner`; what it does with Python's lists and
slices is written here so that a tracer keeps it.

Shapes: K candidates, M mask side, C semantic classes, y, x logits, h, w network input without padding, H, W output; S
segments.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .detector import least_float32
from .program import claim_all_pixels, label_all_pixels
from .tensors import Size, is_program, length, scripted

__all__ = ["CombineSettings", "Things", "Thresholds", "claim_pixels", "free_labels", "stuff_segments"]

# At output size at a time: 4 MB, which stay in a cache, but no more strips than this, as each copies the map.
_STRIP_LOGITS, _MOST_STRIPS = 2**20, 64


class Thresholds(NamedTuple):
    """Arguments of `HeuristicCombiner` that are inputs of a graph, and of its files, as what a graph compares with.

    ``instance_score_threshold`` float32 (), ``overlap_threshold`` float64 (), ``stuff_area_threshold`` int64 ().
    """

    instance_score_threshold: torch.Tensor
    overlap_threshold: torch.Tensor
    stuff_area_threshold: torch.Tensor

    @classmethod
    def of_numbers(
        cls, instance_score_threshold: float, overlap_threshold: float, stuff_area_threshold: float
    ) -> "Thresholds":
        """What gives the same answers as Python's numbers."""
        return cls(
            torch.tensor(least_float32(instance_score_threshold)),
            torch.tensor(overlap_threshold, dtype=torch.float64),
            torch.tensor(math.ceil(stuff_area_threshold)),
        )


@dataclass(frozen=True)
class CombineSettings:
    """The arguments of `HeuristicCombiner`, which has their meaning."""

    overlap_threshold: float
    stuff_area_threshold: int
    instance_score_threshold: float
    thing_sem_seg_ids: Collection[int]
    sem_seg_stride: int
    mask_threshold: float = 0.5

    @property
    def thresholds(self) -> Thresholds:
        """What the inputs of a graph are where nobody sets them."""
        return Thresholds.of_numbers(self.instance_score_threshold, self.overlap_threshold, self.stuff_area_threshold)


class Things(NamedTuple):
    """``panoptic_seg`` int32 (H, W), with ids 1, 2, … of the candidates that got pixels and 0 elsewhere; ``areas``
    int64 (K,), their pixels: 0 of a candidate that was dropped.
    """

    panoptic_seg: torch.Tensor
    areas: torch.Tensor


def claim_pixels(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: Size,
    width: Size,
    mask_threshold: float,
    overlap_threshold: torch.Tensor,
) -> Things:
    """Give each candidate its free pixels, unless more than ``overlap_threshold`` of its own are taken.

    Args:
        masks: float (K, M, M), probabilities inside the boxes, by falling score.
        boxes: float (K, 4), XYXY in output pixels, clipped and not empty.
        height, width: int64 (), H and W.
        mask_threshold: probability from which a pixel belongs to an instance.
        overlap_threshold: float64 ().
    """
    if is_program():
        return Things(*claim_all_pixels(masks, boxes, height, width, mask_threshold, overlap_threshold))
    lower = (boxes[:, :2].floor() - 1).clamp(min=0)
    upper = torch.minimum(boxes[:, 2:].ceil() + 1, torch.stack([width, height]).to(boxes.dtype))
    windows = torch.cat([lower, upper], dim=1).long()
    empty = torch.zeros([height, width], dtype=torch.int32)
    return Things(*_claim(empty, masks, boxes, windows, mask_threshold, overlap_threshold))


@scripted
def _claim(
    panoptic_seg: torch.Tensor,
    masks: torch.Tensor,
    boxes: torch.Tensor,
    windows: torch.Tensor,
    mask_threshold: float,
    overlap_threshold: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    areas = torch.zeros_like(windows[:, 0])
    row = torch.arange(masks.size(0), device=masks.device)
    tap = torch.arange(masks.size(1), device=masks.device, dtype=torch.float32)
    next_id = torch.ones((), dtype=torch.int32, device=masks.device)
    for i in range(masks.size(0)):
        x0, y0, x1, y1 = int(windows[i, 0]), int(windows[i, 1]), int(windows[i, 2]), int(windows[i, 3])
        # As `grid_sample` has it: -1 and 1 are the edges of the box, pixels outside are 0. Bilinear weights are a
        # product of one along y and one along x, so sampling is two products of matrices.
        y = torch.arange(y0, y1, device=masks.device, dtype=torch.float32) + 0.5
        x = torch.arange(x0, x1, device=masks.device, dtype=torch.float32) + 0.5
        y = (y - boxes[i, 1]) / (boxes[i, 3] - boxes[i, 1]) * 2 - 1
        x = (x - boxes[i, 0]) / (boxes[i, 2] - boxes[i, 0]) * 2 - 1
        y = ((y + 1) * masks.size(1) - 1) / 2
        x = ((x + 1) * masks.size(1) - 1) / 2
        along_y = (1 - (y.unsqueeze(1) - tap).abs()).clamp(min=0.0)
        along_x = (1 - (x.unsqueeze(1) - tap).abs()).clamp(min=0.0)
        mask = torch.matmul(torch.matmul(along_y, masks[i]), along_x.t()) >= mask_threshold

        band = panoptic_seg[y0:y1]
        taken = band[:, x0:x1]
        mine = torch.logical_and(mask, taken == 0)
        area = mask.to(torch.int64).sum()
        free_area = mine.to(torch.int64).sum()
        overlap = (area - free_area).to(torch.float64) / area.clamp(min=1).to(torch.float64)
        is_accepted = torch.logical_and(free_area > 0, overlap <= overlap_threshold)
        written = torch.where(torch.logical_and(mine, is_accepted), next_id, taken)
        band = torch.cat([band[:, :x0], written, band[:, x1:]], dim=1)
        panoptic_seg = torch.cat([panoptic_seg[:y0], band, panoptic_seg[y1:]], dim=0)
        areas = areas + (row == i).to(torch.int64) * free_area * is_accepted.to(torch.int64)
        next_id = next_id + is_accepted.to(torch.int32)
    return panoptic_seg, areas


def free_labels(
    logits: torch.Tensor,
    stride: int,
    input_size: tuple[torch.Tensor, torch.Tensor],
    output_size: tuple[Size, Size],
) -> torch.Tensor:
    """Best class of each pixel: the argmax of logits that go up by ``stride``, are cut and resized, bilinearly.

    Args:
        logits: float (C, y, x), padding included.
        stride: network input pixels per logit.
        input_size: int64 () each, h and w.
        output_size: int64 () each, H and W.

    Returns:
        int64 (H, W).
    """
    if is_program():
        return label_all_pixels(logits, stride, input_size, output_size)
    rows, cols = (
        _composed_taps(length(logits, dim), stride, crop, out)
        for dim, crop, out in zip((1, 2), input_size, output_size, strict=True)
    )
    columns = _weighted_columns(logits, *cols)  # C, y, W
    step = torch.div(_STRIP_LOGITS, output_size[1] * logits.shape[0], rounding_mode="floor").clamp(min=1)
    step = torch.maximum(step, torch.div(output_size[0], _MOST_STRIPS, rounding_mode="floor"))
    labels: torch.Tensor = _label_strips(columns, *rows, step)
    return labels


def _composed_taps(source: Size, stride: int, crop: Size, out: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`~panoptic_fpn_ext.modeling.postprocessing.composed_taps`, without a matrix: int64 and float (N, 3)."""
    lower, upper, part = _linear_taps(torch.arange(out, dtype=torch.float32), crop.float() / out.float(), crop)
    steps = [
        (*_linear_taps(position.float(), torch.tensor(1.0 / stride), source), weight)
        for position, weight in ((lower, 1 - part), (upper, part))
    ]
    first = steps[0][0]
    index = first[:, None] + torch.arange(3)
    weight = torch.zeros_like(index, dtype=torch.float32)
    for low, high, part, share in steps:
        weight = weight + (index == low[:, None]) * (share * (1 - part))[:, None]
        weight = weight + (index == high[:, None]) * (share * part)[:, None]
    return torch.minimum(index, source - 1), weight


def _linear_taps(
    position: torch.Tensor, scale: torch.Tensor, source: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `F.interpolate` makes a position of: int64 lower and upper source, and the share of the upper one."""
    at = (scale * (position + 0.5) - 0.5).clamp(min=0)
    lower = torch.minimum(at.floor().long(), source - 1)
    return lower, torch.minimum(lower + 1, source - 1), (at - lower.float()).clamp(0, 1)


def _weighted_columns(logits: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """float (C, y, x) to (C, y, W)."""
    parts = [logits.index_select(2, index[:, k]) * weight[:, k] for k in range(3)]
    return parts[0] + parts[1] + parts[2]


@scripted
def _label_strips(columns: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """float (C, y, W) to int64 (H, W), some rows at a time."""
    labels = torch.zeros([0, columns.size(2)], dtype=torch.int64, device=columns.device)
    rows = int(step)
    for i in range((index.size(0) + rows - 1) // rows):
        source = index[i * rows : (i + 1) * rows]
        share = weight[i * rows : (i + 1) * rows].unsqueeze(2)
        strip = columns.index_select(1, source[:, 0]) * share[:, 0]
        strip = strip + columns.index_select(1, source[:, 1]) * share[:, 1]
        strip = strip + columns.index_select(1, source[:, 2]) * share[:, 2]
        labels = torch.cat([labels, strip.argmax(dim=0)], dim=0)
    return labels


def stuff_segments(
    panoptic_seg: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    num_things: torch.Tensor,
    thing_sem_seg_ids: Collection[int],
    stuff_area_threshold: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Write stuff into what is free.

    Args:
        panoptic_seg: int32 (H, W), with the instances.
        labels: int64 (H, W), below C.
        num_classes: C.
        num_things: int64 (), segments there are already.
        thing_sem_seg_ids: labels that stand for things: their pixels become void.
        stuff_area_threshold: int64 (), pixels that a label needs.

    Returns:
        The whole map, int32 (H, W), and of each stuff segment label and area, int64 (S,).
    """
    kinds = torch.where(panoptic_seg == 0, labels, torch.full_like(labels, num_classes))
    flat = kinds.flatten()
    areas = torch.zeros(num_classes + 1, dtype=torch.int64).scatter_add(0, flat, torch.ones_like(flat))
    may_be = torch.tensor([c < num_classes and c not in thing_sem_seg_ids for c in range(num_classes + 1)])
    kept = may_be & (areas > 0) & (areas >= stuff_area_threshold)
    ids = kept.long() * (kept.long().cumsum(0) + num_things)
    stuff = kept.nonzero()[:, 0]
    return panoptic_seg + ids.int()[kinds], stuff, areas[stuff]
