"""Raw outputs of one image, drawn at random: what a Panoptic FPN says of an 800×1067 px input, without a network."""

from typing import Literal

import torch
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

IMAGE_SIZE = (800, 1067)
STRIDE = 4
LOGITS_SIZE = (200, 272)  # the input padded to a multiple of 32, at stride 4
NUM_CLASSES = 54
NUM_THINGS = 80
MASK_SIZE = 28

Kind = Literal["smooth", "noise"]


def draw_logits(kind: Kind, size: tuple[int, int] = LOGITS_SIZE) -> torch.Tensor:
    """Float (C, h, w): some fifty regions with ragged borders, or noise, in which every pixel is a border."""
    if kind == "noise":
        return torch.randn(NUM_CLASSES, *size) * 3
    regions = F.interpolate(torch.randn(1, NUM_CLASSES, 6, 8), size=size, mode="bicubic")[0]
    return regions * 8 + torch.randn_like(regions) * 0.3


def draw_instances(count: int, size: tuple[int, int] = IMAGE_SIZE) -> Instances:
    """Round objects with boxes of 40 to 600 px, anywhere; scores fall evenly from 0.99 to 0.05."""
    height, width = size
    centres = torch.rand(count, 2) * torch.tensor([width, height])
    side, aspect = 150 * (torch.randn(count) * 0.7).exp(), (torch.randn(count) * 0.4).exp()
    half = torch.stack([side * aspect, side / aspect], dim=1) / 2
    boxes = Boxes(torch.cat([centres - half, centres + half], dim=1))
    boxes.clip(size)
    axis = torch.linspace(-1, 1, MASK_SIZE)
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    return Instances(
        size,
        pred_boxes=boxes,
        scores=torch.linspace(0.99, 0.05, count),
        pred_classes=torch.randint(NUM_THINGS, (count,)),
        pred_masks=((0.9 - radius) * 8 + torch.randn(count, 1, MASK_SIZE, MASK_SIZE) * 0.5).sigmoid(),
    )
