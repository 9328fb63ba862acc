"""RoIAlign as weighted sums of feature vectors.

torchvision's operator for CPUs runs on one core, one channel at a time. A cell of a RoI is a weighted sum of the
feature vectors around it, and its weights are products of weights along y and along x. The gradient of a feature vector
is a weighted sum of the gradients of the cells that see it. Sums of rows of a table are what `embedding_bag` computes,
on all cores and with vector instructions.

Shapes: N images, C channels, h, w map; R RoIs; P cells, G samples a cell and T taps a cell along one axis.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from detectron2.layers import ROIAlign
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .cpu import is_float32_on_cpu, scratch

__all__ = [
    "GatheringROIAlign",
    "Sampling",
    "TrainingROIAlign",
    "gather_rois",
    "scatter_gradients",
]

# Of indices and weights made at a time: 12 bytes each.
_CHUNK_TAPS = 2**22
# torchvision's operator takes as long for a cell as two cores take to give this many positions channels last.
_POSITIONS_PER_CELL = 10


class GatheringROIAlign(ROIAlign):
    """detectron2's `ROIAlign`, faster for float32 on a CPU and as it is for the rest."""

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """Float (N, C, h, w) and (R, 5), index of the image and XYXY, to (R, C, P, P)."""
        if not (is_float32_on_cpu(input) and self._is_worth_it(input, len(rois))):
            return _usual(self, input, rois)
        gathered: torch.Tensor = _Gather.apply(input, rois.detach().float(), self._cells(), self._sampling())
        return gathered

    def pool_into(self, pooled: torch.Tensor, rows: torch.Tensor, features: torch.Tensor, rois: torch.Tensor) -> None:
        """Pool the RoIs of some rows, without a gradient.

        Args:
            pooled: float32 (R, P, P, C); what is in ``rows`` is overwritten.
            rows: int64 (R',).
            features: float32 (N, C, h, w) on a CPU.
            rois: float (R, 5): index of the image, XYXY in network input pixels.
        """
        if self._is_worth_it(features, len(rows)):
            if not features.is_contiguous(memory_format=torch.channels_last):
                n, c, h, w = features.shape
                features = scratch(n, h, w, c).permute(0, 3, 1, 2).copy_(features)
            gather_rois(pooled, rows, features, rois.float(), self._sampling())
        else:
            pooled[rows] = super().forward(features, rois[rows]).permute(0, 2, 3, 1)

    def _is_worth_it(self, features: torch.Tensor, count: int) -> bool:
        """Few RoIs are not worth bringing the map into order."""
        cells = count * math.prod(self._cells())
        return cells * _POSITIONS_PER_CELL > features[:, 0].numel()

    def _cells(self) -> tuple[int, int]:
        size = self.output_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def _sampling(self) -> "Sampling":
        return Sampling(self.spatial_scale, self.sampling_ratio, self.aligned)


class TrainingROIAlign(GatheringROIAlign):
    """`GatheringROIAlign` in training; in evaluation torchvision's operator, for the predictions of detectron2."""

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """As the parent."""
        pool = GatheringROIAlign.forward if self.training else _usual
        return pool(self, input, rois)


def _usual(layer: ROIAlign, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """As detectron2's layer, but coordinates stay float32 beside maps of half precision.

    detectron2 rounds them to the precision of the map: with bfloat16, by up to two pixels from 512 on.
    """
    if features.dtype in (torch.float16, torch.bfloat16):
        with torch.autocast(features.device.type, enabled=False):
            return layer.forward(features.float(), rois.float()).to(features.dtype)
    pooled: torch.Tensor = ROIAlign.forward(layer, features, rois)
    return pooled


class _Gather(torch.autograd.Function):
    """:func:`gather_rois` of all RoIs; backward :func:`scatter_gradients`. RoIs have no gradient, as in detectron2."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, rois: torch.Tensor, cells: tuple[int, int], sampling: "Sampling"
    ) -> torch.Tensor:
        """Float (N, C, h, w) and (R, 5) to (R, C, P, P)."""
        ctx.save_for_backward(rois)
        ctx.shape, ctx.sampling = features.shape, sampling
        pooled = features.new_empty(len(rois), *cells, features.shape[1])
        gather_rois(pooled, torch.arange(len(rois), device=rois.device), features, rois, sampling)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Of the features only."""
        (rois,) = ctx.saved_tensors
        return scatter_gradients(gradient, ctx.shape, rois, ctx.sampling), None, None, None


class Sampling(NamedTuple):
    """How RoIs are sampled, as `torchvision.ops.roi_align` takes it.

    Attributes:
        spatial_scale: map positions per network input pixel.
        sampling_ratio: samples of a cell along each axis; 0 for as many as a cell has positions, rounded up.
        aligned: whether positions are centres of pixels.
    """

    spatial_scale: float
    sampling_ratio: int
    aligned: bool


def gather_rois(
    pooled: torch.Tensor, rows: torch.Tensor, features: torch.Tensor, rois: torch.Tensor, sampling: Sampling
) -> None:
    """`torchvision.ops.roi_align` of some RoIs, the same up to rounding.

    Args:
        pooled: float32 (R, P, P, C); what is in ``rows`` is overwritten.
        rows: int64 (R',), the RoIs to pool.
        features: float32 (N, C, h, w), best with channels last.
        rois: float32 (R, 5): index of the image, XYXY in network input pixels.
        sampling: how RoIs are sampled.
    """
    table = features.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(0, 2)
    for part, index, weight in _sums(rois, rows, pooled.shape[1:3], features.shape[2:], sampling):
        sums = F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)
        pooled[part] = sums.view(len(part), *pooled.shape[1:])


def scatter_gradients(
    gradient: torch.Tensor, shape: torch.Size, rois: torch.Tensor, sampling: Sampling
) -> torch.Tensor:
    """The gradient of the features of :func:`gather_rois`.

    Args:
        gradient: float32 (R, C, P, P), of what was pooled.
        shape: (N, C, h, w), of the features.
        rois, sampling: as there.

    Returns:
        float32 (N, C, h, w).
    """
    n, c, h, w = shape
    by_cell = gradient.permute(0, 2, 3, 1).flatten(0, 2)  # R · P · P, C
    cells = torch.arange(len(by_cell), dtype=torch.int32, device=gradient.device).view(len(rois), -1)
    parts = []
    for part, index, weight in _sums(
        rois, torch.arange(len(rois), device=rois.device), gradient.shape[2:], shape[2:], sampling
    ):
        used = weight.flatten().nonzero()[:, 0]
        cell = cells[part].reshape(-1, 1).expand_as(index)
        parts.append([values.flatten()[used] for values in (index, cell, weight)])
    position, cell, weight = (torch.cat(values) for values in zip(*parts, strict=True))
    position, order = position.sort(stable=True)  # so that sums have the same order each time
    cell, weight = cell[order], weight[order]
    result = gradient.new_empty(n, c, h * w)
    bounds = torch.searchsorted(position, torch.arange(n + 1, dtype=position.dtype, device=position.device) * h * w)
    for image, (begin, end) in enumerate(pairwise(bounds.tolist())):  # each needs memory for its sums
        counts = torch.bincount(position[begin:end] - image * h * w, minlength=h * w)
        sums = F.embedding_bag(
            cell[begin:end],
            by_cell,
            (counts.cumsum(0) - counts).int(),
            mode="sum",
            per_sample_weights=weight[begin:end],
        )
        result[image] = sums.t()
    return result.view(n, c, h, w)


def _sums(
    rois: torch.Tensor, rows: torch.Tensor, cells: torch.Size, size: torch.Size, sampling: Sampling
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of which rows of an (N·h·w, C) table the cells of some RoIs are sums, a part of the RoIs at a time.

    Yields:
        RoIs int64 (R',), and for their cells, R' · P · P of them, int32 rows and float weights (R' · P · P, T · T).
    """
    start, extent = _in_map(rois, sampling)
    cell = extent / extent.new_tensor(cells)
    samples = cell.ceil().clamp(min=0).long()
    if sampling.sampling_ratio > 0:
        samples = torch.full_like(samples, sampling.sampling_ratio)
    for counts in samples[rows].unique(dim=0):  # RoIs with as many samples have about as many taps
        alike = rows[(samples[rows] == counts).all(dim=1)]
        rows_at_a_time = max(1, _CHUNK_TAPS // int(cells[0] * cells[1] * (counts + 2).prod()))
        for part in alike.split(rows_at_a_time):
            y, x = (
                _taps(start[part, axis], cell[part, axis], cells[axis], int(counts[axis]), size[axis])
                for axis in (0, 1)
            )
            yield part, *_products(rois[part, 0], y, x, size)


class _Taps(NamedTuple):
    """Where the cells of RoIs look along one axis: ``position`` int64 and ``weight`` float, (R, P, T)."""

    position: torch.Tensor
    weight: torch.Tensor


def _in_map(rois: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Upper left corner and extent of RoIs in map positions, float (R, 2), y before x."""
    corners = rois[:, 1:] * sampling.spatial_scale - (0.5 if sampling.aligned else 0.0)
    start, end = corners[:, [1, 0]], corners[:, [3, 2]]
    extent = end - start
    return start, extent if sampling.aligned else extent.clamp(min=1.0)


def _taps(start: torch.Tensor, cell: torch.Tensor, cells: int, count: int, length: int) -> _Taps:
    """Taps of RoIs that begin at ``start`` and whose cells are ``cell`` long, float (R,), G = ``count``."""
    samples = (torch.arange(max(count, 1), dtype=start.dtype, device=start.device) + 0.5) / max(count, 1)
    number = torch.arange(cells, device=start.device)[:, None] + samples  # P, G
    position = start[:, None, None] + number * cell[:, None, None]  # R, P, G
    is_near = (position >= -1) & (position <= length)
    share = is_near.to(start.dtype) * (min(count, 1) / max(count, 1))  # of a sample in its cell
    position = position.clamp(0, length - 1)
    lower = position.long().clamp(max=max(length - 2, 0))
    upper_share = (position - lower) * share
    first = lower.amin(dim=2, keepdim=True)
    slot = lower - first
    width = int(slot.max()) + 2
    if width > 2 * max(count, 1):  # samples so far apart that few of them share a position
        upper = (lower + 1).clamp(max=length - 1)
        return _Taps(torch.cat([lower, upper], dim=2), torch.cat([share - upper_share, upper_share], dim=2))
    weight = start.new_zeros(len(start), cells, width)
    weight.scatter_add_(2, slot, share - upper_share).scatter_add_(2, slot + 1, upper_share)
    return _Taps((first + torch.arange(width, device=start.device)).clamp(max=length - 1), weight)


def _products(image: torch.Tensor, y: _Taps, x: _Taps, size: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the table and their weights, both (R · P · P, T · T), of taps along both axes of RoIs, float (R,)
    images.
    """
    h, w = size
    rows = (image.int()[:, None, None] * h + y.position.int()) * w  # R, P, T
    index = rows[:, :, None, :, None] + x.position.int()[:, None, :, None, :]  # R, P, P, T, T
    weight = y.weight[:, :, None, :, None] * x.weight[:, None, :, None, :]
    return index.flatten(0, 2).flatten(1), weight.flatten(0, 2).flatten(1)
