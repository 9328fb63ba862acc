"""RoIAlign as weighted sums of feature vectors.

torchvision's operator for CPUs runs on one core, one channel at a time. A cell of a RoI is a weighted sum of the
feature vectors around it, and its weights are products of weights along y and along x. Sums of rows of a table are what
`embedding_bag` computes, on all cores and with vector instructions.

Shapes: N pictures, C channels, h, w map; R RoIs; P cells, G samples a cell and T taps a cell along one axis.
"""

from typing import NamedTuple

import torch
from detectron2.layers import ROIAlign
from torch.nn import functional as F

from .scratch import scratch
from .swapped import is_usual

__all__ = ["GatheringROIAlign", "gather_rois"]

# Of indices and weights made at a time: 12 bytes each.
_CHUNK_TAPS = 2**22
# torchvision's operator takes as long for a cell as two cores take to give this many positions channels last.
_POSITIONS_PER_CELL = 10


class GatheringROIAlign(ROIAlign):
    """detectron2's `ROIAlign`, faster for float32 on a CPU and as it is for the rest."""

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """Float (N, C, h, w) and (R, 5), index of the picture and XYXY, to (R, C, P, P)."""
        if not is_usual(input):
            usual: torch.Tensor = super().forward(input, rois)
            return usual
        pooled = input.new_empty(len(rois), *self.output_size, input.shape[1])
        self.pool_into(pooled, torch.arange(len(rois)), input, rois)
        return pooled.permute(0, 3, 1, 2)

    def pool_into(self, pooled: torch.Tensor, rows: torch.Tensor, features: torch.Tensor, rois: torch.Tensor) -> None:
        """Pool the RoIs of some rows.

        Args:
            pooled: float32 (R, P, P, C); what is in ``rows`` is overwritten.
            rows: int64 (R',).
            features: float32 (N, C, h, w) on a CPU.
            rois: float (R, 5): index of the picture, XYXY in network input pixels.
        """
        cells = len(rows) * self.output_size[0] * self.output_size[1]
        # With a fixed number of samples, cells of large RoIs would have gaps between their taps; few RoIs are not worth
        # bringing the map into order.
        if self.sampling_ratio > 0 or cells * _POSITIONS_PER_CELL <= features[:, 0].numel():
            pooled[rows] = super().forward(features, rois[rows]).permute(0, 2, 3, 1)
        else:
            gather_rois(pooled, rows, features, rois.float(), self.spatial_scale, self.aligned)


class _Taps(NamedTuple):
    """Where the cells of RoIs look along one axis: ``first`` int64 (R, P) and ``weight`` float (R, P, T) of the T
    positions from there.
    """

    first: torch.Tensor
    weight: torch.Tensor


def gather_rois(
    pooled: torch.Tensor,
    rows: torch.Tensor,
    features: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    aligned: bool,
) -> None:
    """`torchvision.ops.roi_align` with as many samples as a cell has positions, rounded up; the same up to rounding.

    Args:
        pooled: float32 (R, P, P, C); what is in ``rows`` is overwritten.
        rows: int64 (R',), the RoIs to pool.
        features: float32 (N, C, h, w).
        rois: float32 (R, 5): index of the picture, XYXY in network input pixels.
        spatial_scale: map positions per network input pixel.
        aligned: whether positions are centres of pixels.
    """
    output_size = pooled.shape[1:3]
    channels, size = features.shape[1], features.shape[2:]
    by_position = features.permute(0, 2, 3, 1)
    if not by_position.is_contiguous():
        by_position = scratch(*by_position.shape).copy_(by_position)
    table = by_position.view(-1, channels)
    start, extent = _in_map(rois, spatial_scale, aligned)
    cell = extent / extent.new_tensor(output_size)
    samples = cell.ceil().clamp(min=0).long()
    for counts in samples[rows].unique(dim=0):  # RoIs with as many samples have about as many taps
        alike = rows[(samples[rows] == counts).all(dim=1)]
        rows_at_a_time = max(1, _CHUNK_TAPS // int(output_size[0] * output_size[1] * (counts + 2).prod()))
        for part in alike.split(rows_at_a_time):
            y, x = (
                _taps(start[part, axis], cell[part, axis], output_size[axis], int(counts[axis]), size[axis])
                for axis in (0, 1)
            )
            pooled[part] = _weighted_sums(table, rois[part, 0], y, x, size)


def _in_map(rois: torch.Tensor, spatial_scale: float, aligned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Upper left corner and extent of RoIs in map positions, float (R, 2), y before x."""
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start, end = corners[:, [1, 0]], corners[:, [3, 2]]
    extent = end - start
    return start, extent if aligned else extent.clamp(min=1.0)


def _taps(start: torch.Tensor, cell: torch.Tensor, cells: int, count: int, length: int) -> _Taps:
    """Taps of RoIs that begin at ``start`` and whose cells are ``cell`` long, float (R,), G = ``count``."""
    samples = (torch.arange(max(count, 1)) + 0.5) / max(count, 1)
    number = torch.arange(cells)[:, None] + samples  # P, G
    position = start[:, None, None] + number * cell[:, None, None]  # R, P, G
    share = ((position >= -1) & (position <= length)) * (min(count, 1) / max(count, 1))  # of a sample in its cell
    position = position.clamp(0, length - 1)
    lower = position.long().clamp(max=max(length - 2, 0))
    upper_share = (position - lower) * share
    first = lower.amin(dim=2)
    slot = lower - first[:, :, None]
    weight = start.new_zeros(len(start), cells, int(slot.max()) + 2)
    weight.scatter_add_(2, slot, share - upper_share).scatter_add_(2, slot + 1, upper_share)
    return _Taps(first, weight)


def _weighted_sums(table: torch.Tensor, picture: torch.Tensor, y: _Taps, x: _Taps, size: torch.Size) -> torch.Tensor:
    """(R, P, P, C): sums of rows of ``table``, float (N·h·w, C)."""
    h, w = size
    rows, cols = (
        (taps.first[:, :, None] + torch.arange(taps.weight.shape[2])).clamp(max=length - 1).int()
        for taps, length in ((y, h), (x, w))
    )  # R, P, T
    rows = (picture.int()[:, None, None] * h + rows) * w
    index = rows[:, :, None, :, None] + cols[:, None, :, None, :]  # R, P, P, T, T
    weight = y.weight[:, :, None, :, None] * x.weight[:, None, :, None, :]
    taps = index.shape[3] * index.shape[4]
    sums = F.embedding_bag(index.view(-1, taps), table, mode="sum", per_sample_weights=weight.view(-1, taps))
    return sums.view(*index.shape[:3], -1)
