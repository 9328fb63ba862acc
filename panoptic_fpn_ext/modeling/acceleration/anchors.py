"""Anchors made where they are needed.

Shapes: A anchors a position, h, w of a level.
"""

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from ..graph_capture import is_capturing_graph

__all__ = ["OnDeviceAnchorGenerator"]


class OnDeviceAnchorGenerator(DefaultAnchorGenerator):
    """`DefaultAnchorGenerator` that counts positions on a GPU; the parent uploads them and waits, twice a level."""

    def _grid_anchors(self, grid_sizes: list[list[int]]) -> list[torch.Tensor]:
        """(h, w) of each level → anchors float32 (h · w · A, 4) of each."""
        cell_anchors = list(self.cell_anchors)
        if cell_anchors[0].device.type == "cpu" or is_capturing_graph():
            usual: list[torch.Tensor] = super()._grid_anchors(grid_sizes)
            return usual
        levels = zip(grid_sizes, self.strides, cell_anchors, strict=True)
        return [self._shifted(cells, size, stride) for size, stride, cells in levels]

    def _shifted(self, cells: torch.Tensor, size: list[int], stride: int) -> torch.Tensor:
        """The anchors of one position, float32 (A, 4), at all positions of a level."""
        y, x = (
            (torch.arange(n, dtype=torch.float64, device=cells.device) * stride + self.offset * stride).float()
            for n in size
        )
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((x, y, x, y), dim=2).view(-1, 1, 4)
        return (shifts + cells).reshape(-1, 4)
