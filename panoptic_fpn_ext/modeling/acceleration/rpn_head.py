"""Training detectron2's RPN in less memory, with the same results and parameter names.

Shapes: N images, C channels, A anchors a position, h, w of a level.
"""

import torch
from detectron2.modeling.proposal_generator import StandardRPNHead

from ..graph_capture import is_capturing_graph

__all__ = ["PerImageRPNHead"]

_LARGE = 2**20  # numbers in the map of an image


class PerImageRPNHead(StandardRPNHead):
    """`StandardRPNHead` that, in training on a CPU, takes large maps one by one.

    Its hidden map of the finest level is among the largest of the whole network, and its backward pass, where the peak
    of a training step's memory is, needs several of that size. One image is enough work for all cores.
    """

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Levels float (N, C, h, w) → objectness float (N, A, h, w) and box deltas float (N, 4·A, h, w) a level."""
        if not self.training or features[0].device.type != "cpu" or is_capturing_graph():
            return super().forward(features)
        objectness, deltas = [], []
        for level in features:
            parts = level.split(1) if level[:1].numel() > _LARGE else [level]
            predictions = [StandardRPNHead.forward(self, [part]) for part in parts]
            objectness.append(torch.cat([scores for (scores,), _ in predictions]))
            deltas.append(torch.cat([boxes for _, (boxes,) in predictions]))
        return objectness, deltas
