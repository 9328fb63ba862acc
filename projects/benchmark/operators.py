#!/usr/bin/env python
"""The parts of a model that `optimize_for_inference` computes another way, one by one, at the sizes they have in R50.

    OMP_NUM_THREADS=2 python projects/benchmark/operators.py

3×3 convolutions by each algorithm, and RoIAlign. See README.md.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from alternation import print_rows, timed
from detectron2.layers import ROIAlign
from environment import environment

from panoptic_fpn_ext.modeling.inference.convolution import ALGORITHMS
from panoptic_fpn_ext.modeling.inference.roi_align import gather_rois

# Pictures or RoIs, input channels, output channels, height, width.
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
STRIDE = 4


@torch.no_grad()
def main() -> None:
    """Measure, print two tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("output/benchmark/operators.json"))
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.nnpack.is_available()
    tables = {
        "convolutions": [convolution_row(shape, args.rounds) for shape in CONVOLUTIONS],
        "roi_align": [roi_align_row(cells, args.rounds) for cells in (7, 14)],
    }
    for rows in tables.values():
        print_rows(rows)
        print()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({**tables, "environment": environment()}, indent=1) + "\n")


def convolution_row(shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Milliseconds of each algorithm, with the conversion from channels last."""
    n, inputs, outputs, h, w = shape
    x = torch.randn(n, inputs, h, w).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(outputs, inputs, 3, 3) / inputs**0.5, torch.randn(outputs)
    names = ["direct", "winograd", *(["winograd_by_picture"] if n > 1 else [])]
    calls: dict[str, Callable[[], Any]] = {name: partial(ALGORITHMS[name], x, weight, bias) for name in names}
    row: dict[str, Any] = {"shape": shape, "winograd_by_picture_wall": None, "winograd_by_picture_cpu": None}
    return {**row, **milliseconds(calls, rounds)}


def roi_align_row(cells: int, rounds: int) -> dict[str, Any]:
    """Milliseconds for 500 RoIs of 25 to 110 px on p2, both ways, with channels last."""
    features = torch.randn(1, 256, 200, 272).contiguous(memory_format=torch.channels_last)
    centres, sides = torch.rand(500, 2) * torch.tensor([1067.0, 800.0]), (torch.rand(500, 2) * 1.5 + 3.2).exp()
    rois = torch.cat([torch.zeros(500, 1), centres - sides / 2, centres + sides / 2], dim=1)
    calls: dict[str, Callable[[], Any]] = {
        "torchvision": partial(ROIAlign((cells, cells), 1 / STRIDE, 0), features, rois),
        "ours": partial(gather_rois, features, rois, (cells, cells), 1 / STRIDE, True),
    }
    return {"cells": f"{cells}×{cells}", **milliseconds(calls, rounds)}


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
    main()
