"""What combiners share: which detections take part, how large regions are, and the list of segments."""

from collections.abc import Iterable, Sequence

import torch

from ...structures import SegmentInfo
from ..postprocessing import Placement, row_strips

__all__ = ["candidate_rows", "label_areas", "stuff_segments", "thing_segments"]


def candidate_rows(scores: Sequence[float], score_threshold: float) -> list[int]:
    """Positions of the instances whose score is at least the threshold, best first."""
    # As detectron2 sorts them, so that equal scores come in its order. The host has them: no device is asked.
    order = torch.argsort(-torch.tensor(scores, dtype=torch.float32)).tolist()
    # As Python numbers: a float32 tensor would round the threshold.
    return [k for k in order if scores[k] >= score_threshold]


def label_areas(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """int64 (C,): how often each label below C occurs in (H, W)."""
    if labels.device.type == "cpu":
        return torch.bincount(labels.flatten(), minlength=num_classes)[:num_classes]
    # On a GPU `bincount` makes the host wait for the largest label. Rows keep additions to one number few.
    by_row = torch.zeros(len(labels), num_classes + 1, dtype=torch.int32, device=labels.device)
    for strip in row_strips(*labels.shape):
        index = labels[strip].long()
        by_row[strip].scatter_add_(1, index, by_row.new_ones(()).expand_as(index))
    return by_row.sum(dim=0)[:num_classes]


def thing_segments(placement: Placement, rows: Iterable[int]) -> list[SegmentInfo]:
    """Segments of instances, by their positions among those that are not empty."""
    return [
        SegmentInfo(
            id=i,
            isthing=True,
            score=placement.scores[row],
            category_id=placement.classes[row],
            instance_id=row,
        )
        for i, row in enumerate(rows, start=1)
    ]


def stuff_segments(areas: Sequence[int], ids: Sequence[int]) -> list[SegmentInfo]:
    """Segments of the labels that have an id."""
    return [
        SegmentInfo(id=i, isthing=False, category_id=label, area=area)
        for label, (area, i) in enumerate(zip(areas, ids, strict=True))
        if i
    ]
