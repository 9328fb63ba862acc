#!/usr/bin/env python
"""The parts of a model that this package computes another way, one by one.

    OMP_NUM_THREADS=2 python projects/benchmark/operators.py

3×3 convolutions by each algorithm, RoIAlign, residual blocks and mask head, at the sizes they have in R50; depthwise
convolutions of EfficientNet-Lite0 and their gradients with channels first and, as in training, last. See README.md.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from alternation import print_rows, timed
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from environment import add_output_argument, write_report

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.modeling.acceleration.mask_head import PredictedClassMaskHead
from panoptic_fpn_ext.modeling.acceleration.replace import take_over
from panoptic_fpn_ext.modeling.acceleration.residual import InPlaceBottleneckBlock
from panoptic_fpn_ext.modeling.acceleration.roi_align import GatheringROIAlign
from panoptic_fpn_ext.modeling.acceleration.winograd import ALGORITHMS

# Images or RoIs, input channels, output channels, height, width.
CONVOLUTIONS = [
    (1, 256, 256, 200, 272),
    (1, 256, 128, 200, 272),
    (1, 256, 256, 100, 136),
    (1, 256, 256, 50, 68),
    (1, 256, 256, 25, 34),
    (1, 64, 64, 200, 272),
    (1, 128, 128, 100, 136),
    (1, 512, 512, 25, 34),
    (2, 256, 256, 100, 136),
    (100, 256, 256, 14, 14),
    (20, 256, 256, 14, 14),
]
# Inner channels, height, width.
BLOCKS = [(64, 200, 272), (128, 100, 136), (256, 50, 68), (512, 25, 34)]
# Channels, kernel size, stride, height and width of the input; batches of 4 crops of 256×256 px.
DEPTHWISE = [(96, 3, 2, 129), (144, 3, 1, 64), (144, 5, 2, 67), (240, 5, 1, 32), (480, 5, 1, 16), (672, 5, 1, 16)]
STRIDE = 4


@torch.no_grad()
def main() -> None:
    """Measure, print the tables and write JSON."""
    parser = command_parser(__doc__, "OMP_NUM_THREADS=2 python projects/benchmark/operators.py")
    parser.add_argument("--rounds", type=whole(1), default=5)
    add_output_argument(parser, "operators.json")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.nnpack.is_available()
    tables = {
        "convolutions": [convolution_row(shape, args.rounds) for shape in CONVOLUTIONS],
        "roi_align": [roi_align_row(cells, args.rounds) for cells in (7, 14)],
        "residual_blocks": [block_row(*shape, args.rounds) for shape in BLOCKS],
        "mask_head": [mask_head_row(count, args.rounds) for count in (100, 20)],
        "depthwise": [depthwise_row(*shape, args.rounds) for shape in DEPTHWISE],
    }
    for rows in tables.values():
        print_rows(rows)
        print()
    write_report(args.output, dict(tables))


def convolution_row(shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Milliseconds of each algorithm, with the conversion from channels last."""
    n, inputs, outputs, h, w = shape
    x = torch.randn(n, inputs, h, w).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(outputs, inputs, 3, 3) / inputs**0.5, torch.randn(outputs)
    names = ["direct", "winograd", *(["winograd_by_image"] if n > 1 else [])]
    calls: dict[str, Callable[[], Any]] = {name: partial(ALGORITHMS[name], x, weight, bias) for name in names}
    row: dict[str, Any] = {"shape": shape, "winograd_by_image_wall": None, "winograd_by_image_cpu": None}
    return {**row, **milliseconds(calls, rounds)}


def roi_align_row(cells: int, rounds: int) -> dict[str, Any]:
    """Milliseconds for 500 RoIs of 25 to 110 px on p2, both ways, with channels last."""
    features = torch.randn(1, 256, 200, 272).contiguous(memory_format=torch.channels_last)
    centres, sides = torch.rand(500, 2) * torch.tensor([1067.0, 800.0]), (torch.rand(500, 2) * 1.5 + 3.2).exp()
    rois = torch.cat([torch.zeros(500, 1), centres - sides / 2, centres + sides / 2], dim=1)
    pooler = ROIAlign((cells, cells), 1 / STRIDE, 0)
    calls: dict[str, Callable[[], Any]] = {
        "torchvision": partial(pooler, features, rois),
        "ours": partial(take_over(GatheringROIAlign, pooler), features, rois),
    }
    for name, call in list(calls.items()):
        calls[f"{name}, with backward"] = partial(with_backward, call, features)
    return {"cells": f"{cells}×{cells}", **milliseconds(calls, rounds)}


@torch.enable_grad()
def with_backward(call: Callable[[], torch.Tensor], *inputs: torch.Tensor) -> None:
    """What training does: the call, and the gradients of what it computes with."""
    for tensor in inputs:
        tensor.requires_grad_()
    result = call()
    result.backward(torch.ones_like(result))
    for tensor in inputs:
        tensor.grad = None
        tensor.requires_grad_(False)


def block_row(channels: int, height: int, width: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a bottleneck block without norms, both ways, with channels last."""
    block = BottleneckBlock(4 * channels, 4 * channels, bottleneck_channels=channels, norm="")
    for conv in (block.conv1, block.conv2, block.conv3):
        conv.bias = torch.nn.Parameter(torch.zeros(conv.out_channels))
    block.requires_grad_(False).to(memory_format=torch.channels_last)
    x = torch.randn(1, 4 * channels, height, width).contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Any]] = {
        "detectron2": partial(block, x),
        "ours": partial(take_over(InPlaceBottleneckBlock, block), x.clone()),
    }
    return {"block": f"{channels}, {height}×{width}", **milliseconds(calls, rounds)}


def mask_head_row(count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of the mask head without 3×3 convolutions: deconvolution, and masks of 80 classes or of one."""
    head = MaskRCNNConvUpsampleHead(ShapeSpec(channels=256, height=14, width=14), num_classes=80, conv_dims=[256])
    x = torch.randn(count, 256, 14, 14)
    instances = [Instances((1, 1), pred_classes=torch.arange(count) % 80)]
    calls: dict[str, Callable[[], Any]] = {
        "detectron2": partial(head.eval(), x, instances),
        "ours": partial(take_over(PredictedClassMaskHead, head), x, instances),
    }
    return {"detections": count, **milliseconds(calls, rounds)}


def depthwise_row(channels: int, kernel_size: int, stride: int, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a depthwise convolution and its gradients, in both layouts."""
    padding = kernel_size // 2 if stride == 1 else 0
    conv = torch.nn.Conv2d(channels, channels, kernel_size, stride, padding, groups=channels, bias=False)
    calls: dict[str, Callable[[], Any]] = {}
    for name, layout in (("channels first", torch.contiguous_format), ("channels last", torch.channels_last)):
        x = torch.randn(4, channels, size, size).contiguous(memory_format=layout)
        calls[name] = partial(with_backward, partial(conv, x), x, conv.weight)
    return {"depthwise": f"{channels}, {kernel_size}×{kernel_size}, {size}×{size}", **milliseconds(calls, rounds)}


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Medians of wall and processor time of calls that take turns, after a round that does not count."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            seconds[name].append(timed(lambda _, call=call: call(), 0, "cpu"))
    return {
        f"{name}_{kind}": median(pair[index] for pair in pairs[1:]) * 1000
        for name, pairs in seconds.items()
        for index, kind in enumerate(("wall", "cpu"))
    }


if __name__ == "__main__":
    run_command(main)
