"""What `torch.export` can write down of suppression, merging and labels.

It knows no TorchScript and no loop in Python that depends on a number, but `while_loop`, whose body sees whole tensors.
So an instance is pasted over the whole map and labels are found class by class: more arithmetic than in `combine.py`,
the same results up to rounding.

Shapes: B boxes, K candidates, M mask side, C semantic classes, y, x logits, H, W output.
"""

import torch
from torch._higher_order_ops.while_loop import while_loop

__all__ = ["claim_all_pixels", "label_all_pixels", "suppress_in_program"]

_FEW_BOXES = 1000  # as in nms.py


def suppress_in_program(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Rows that `batched_nms` keeps, by falling score; arguments as in ``nms.py``.

    Boxes of different classes are moved apart, as torchvision does with few boxes; where it looks at each class by
    itself, they are moved in float64, which rounds nothing.
    """
    largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    rounded = (boxes + (classes.to(boxes.dtype) * largest)[:, None]).double()
    exact = boxes.double() + (classes.double() * largest.double())[:, None]
    is_few = torch.ones_like(classes).sum() <= _FEW_BOXES
    # torchvision promises `torch.export` that two boxes or more are kept. So two come last that suppress nothing.
    apart = torch.cat([torch.where(is_few, rounded, exact), exact.new_tensor([[-3, -3, -2, -2], [-6, -6, -5, -5]])])
    ranks = torch.cat([scores.double(), exact.new_full((2,), -torch.inf)])
    kept: torch.Tensor = torch.ops.torchvision.nms(apart, ranks, threshold)
    return kept[kept < boxes.shape[0]]


def claim_all_pixels(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    height: int,
    width: int,
    mask_threshold: float,
    overlap_threshold: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`.combine.claim_pixels`; height and width are numbers."""
    rows = torch.arange(height, dtype=torch.float32) + 0.5
    cols = torch.arange(width, dtype=torch.float32) + 0.5
    count = torch.ones_like(boxes[:, 0], dtype=torch.int64).sum()
    # One more than there are, for a loop over none.
    masks = torch.cat([masks, torch.zeros_like(masks.sum(dim=0, keepdim=True))])
    boxes = torch.cat([boxes, torch.ones_like(boxes.sum(dim=0, keepdim=True))])

    def is_left(i: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return i < count

    def claim(
        i: torch.Tensor, next_id: torch.Tensor, panoptic_seg: torch.Tensor, areas: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        box, inside = boxes.index_select(0, i.view(1))[0], masks.index_select(0, i.view(1))[0]
        along_y = _hat((rows - box[1]) / (box[3] - box[1]) * inside.shape[0] - 0.5, inside.shape[0])
        along_x = _hat((cols - box[0]) / (box[2] - box[0]) * inside.shape[1] - 0.5, inside.shape[1])
        mask = along_y @ inside @ along_x.t() >= mask_threshold
        mine = mask & (panoptic_seg == 0)
        area, free_area = mask.sum(), mine.sum()
        overlap = (area - free_area).double() / area.clamp(min=1).double()
        is_accepted = (free_area > 0) & (overlap <= overlap_threshold)
        written = torch.where(mine & is_accepted, next_id, panoptic_seg)
        is_this = torch.arange(areas.shape[0]) == i
        return i + 1, next_id + is_accepted.int(), written, torch.where(is_this, free_area * is_accepted, areas)

    start = (
        torch.zeros((), dtype=torch.int64),
        torch.ones((), dtype=torch.int32),
        torch.zeros(height, width, dtype=torch.int32),
        torch.zeros_like(boxes[:, 0], dtype=torch.int64),
    )
    _, _, panoptic_seg, areas = while_loop(is_left, claim, start)
    return panoptic_seg, areas[:-1]


def _hat(position: torch.Tensor, count: int) -> torch.Tensor:
    """Weights of bilinear interpolation, float (n, count): of each position, its distance from the sources below 1."""
    source = torch.arange(count, dtype=torch.float32)
    return (1 - (position[:, None] - source).abs()).clamp(min=0)


def label_all_pixels(
    logits: torch.Tensor, stride: int, input_size: tuple[torch.Tensor, torch.Tensor], output_size: tuple[int, int]
) -> torch.Tensor:
    """As :func:`.combine.free_labels`; the output size is numbers."""
    along_y = _resize_matrix(logits.shape[1], stride, input_size[0], output_size[0])
    along_x = _resize_matrix(logits.shape[2], stride, input_size[1], output_size[1]).t()

    def is_left(i: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return i < logits.shape[0]

    def compare(i: torch.Tensor, best: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        plane = along_y @ logits.index_select(0, i.view(1))[0] @ along_x
        return i + 1, torch.maximum(best, plane), torch.where(plane > best, i, labels)

    best = torch.full(output_size, -torch.inf)
    start = (torch.zeros((), dtype=torch.int64), best, torch.zeros(output_size, dtype=torch.int64))
    labels: torch.Tensor = while_loop(is_left, compare, start)[2]
    return labels


def _resize_matrix(source: int, stride: int, crop: torch.Tensor, out: int) -> torch.Tensor:
    """float (out, source): up by ``stride``, cut at ``crop``, resized, each bilinearly with clamped positions."""
    up = (torch.arange(source * stride, dtype=torch.float32) + 0.5) / stride - 0.5
    taken = (torch.arange(out, dtype=torch.float32) + 0.5) * (crop.float() / out) - 0.5
    taken = torch.minimum(taken.clamp(min=0), (crop - 1).float())
    return _hat(taken, source * stride) @ _hat(up.clamp(0, source - 1), source)
