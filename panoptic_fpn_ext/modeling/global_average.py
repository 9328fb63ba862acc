"""Losses of several processes, averaged as one process would.

Each process averages a loss over its own pixels, RoIs or masks, and data-parallel training averages the gradients of
processes: a pixel of a process with few labelled ones counts for more than one of its neighbour's. With the counts of
all processes each counts the same.
"""

from collections.abc import Mapping, Sequence

import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import distributed

__all__ = ["Counts", "average_over_processes", "count_rois"]

Counts = dict[str, torch.Tensor | int]
"""How many things the losses whose names start with a key are averaged over."""


def count_rois(sampled: Sequence[Instances], num_classes: int) -> tuple[int, torch.Tensor | int]:
    """RoIs that a box head was trained on, and those among them that a mask head was, int64 () on their device.

    Args:
        sampled: RoIs with ``gt_classes`` (int64; ``num_classes`` is background), as RoI heads return them in training.
        num_classes: T.
    """
    classes = [x.gt_classes for x in sampled if x.has("gt_classes")]
    return sum(len(c) for c in classes), sum(((c >= 0) & (c < num_classes)).sum() for c in classes)


def average_over_processes(losses: Mapping[str, torch.Tensor], counts: Counts) -> dict[str, torch.Tensor]:
    """Weight local means so that their mean over processes is the mean over everything that any process counted.

    All processes must call it with the same keys in ``counts``. Without other processes nothing changes.

    Args:
        losses: scalars by name.
        counts: how many things the losses whose names start with a key are averaged over.

    Returns:
        The losses, those of unknown names as they are.
    """
    world_size = comm.get_world_size()
    if world_size == 1 or not losses:
        return dict(losses)
    device = next(iter(losses.values())).device
    local = torch.stack([torch.zeros((), dtype=torch.int64, device=device) + count for count in counts.values()])
    total = local.clone()
    distributed.all_reduce(total)
    weights = dict(zip(counts, local * world_size / total.clamp(min=1), strict=True))
    return {name: loss * _weight(name, weights) for name, loss in losses.items()}


def _weight(name: str, weights: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
    return next((weight for prefix, weight in weights.items() if name.startswith(prefix)), 1.0)
