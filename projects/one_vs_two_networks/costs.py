#!/usr/bin/env python
"""What models cost: parameters, multiply-adds, time and memory, side by side in one run. Nothing is trained.

    costs.py CONFIG.yaml … [--size H W] [--rounds N] [--json FILE] [--register …] [--opts KEY VALUE …]

Weights are random, as they are before training, so hardly anything is detected. A detection adds the same to all
models: its share of the mask head. Times come by turns from one process; memory comes from a process for each model
and is what one image needs beyond the model and what the process held before: activations, and in training gradients.
What libraries and threads take at their first call is not counted.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import copy
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from panoptic_fpn_ext.command import child_output, command_parser, run_command, whole
from panoptic_fpn_ext.engine.data_descriptions import add_register_argument
from panoptic_fpn_ext.engine.device import synchronize
from panoptic_fpn_ext.engine.memory import PeakMemory, returning_memory
from panoptic_fpn_ext.engine.setup import load_prediction_config
from panoptic_fpn_ext.index_masks import IndexMasks

MEASURED_MEMORY = ("inference", "training")


def load(config_file: str, args: argparse.Namespace) -> torch.nn.Module:
    """The untrained model of a config, in evaluation mode."""
    torch.manual_seed(0)
    return build_model(load_prediction_config(config_file, args.opts, args.register)).eval()


def noise_image(size: tuple[int, int]) -> dict[str, Any]:
    """Noise with four objects."""
    height, width = size
    index_map = torch.zeros(height, width, dtype=torch.uint8)
    for k in range(4):
        index_map[height * k // 5 : height * (k + 1) // 5, width * k // 5 : width * (k + 2) // 5] = k + 1
    masks = IndexMasks(index_map, torch.arange(1, 5))
    boxes = Boxes(masks.get_bounding_boxes().tensor)
    instances = Instances(size, gt_boxes=boxes, gt_classes=torch.zeros(4, dtype=torch.int64), gt_masks=masks)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    sem_seg = (index_map > 0).long()
    return {"image": image, "sem_seg": sem_seg, "instances": instances, "height": height, "width": width}


def infer(model: torch.nn.Module, image: dict[str, Any]) -> None:
    """One image through the whole model, post-processing included."""
    with torch.no_grad():
        model([image])


def train_step(model: torch.nn.Module, image: dict[str, Any]) -> None:
    """Losses and gradients of one image."""
    with EventStorage():
        sum(model.train()([image]).values()).backward()


def multiply_adds(model: torch.nn.Module, size: tuple[int, int]) -> float:
    """In 10⁹, of one image."""
    counted = FlopCountAnalysis(model, [noise_image(size)])
    return float(counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()) / 1e9


def seconds(models: list[torch.nn.Module], size: tuple[int, int], rounds: int) -> list[list[float]]:
    """Of one image, by model; the first round does not count."""
    samples: list[list[float]] = [[] for _ in models]
    for round_ in range(rounds + 1):
        for model, found in zip(models, samples, strict=True):
            device, image = next(model.parameters()).device, noise_image(size)
            synchronize(device)
            start = time.perf_counter()
            infer(model, image)
            synchronize(device)
            if round_:
                found.append(time.perf_counter() - start)
    return samples


def memory_in_a_fresh_process(config_file: str, what: str, args: argparse.Namespace) -> float:
    """MiB at the peak of one piece of work."""
    command = [sys.executable, __file__, config_file, "--memory", what, "--size", *map(str, args.size)]
    command += [word for one in args.register for word in ("--register", *one)]
    command += ["--opts", *args.opts]
    return float(child_output(command, returning_memory()).splitlines()[-1])


def peak_memory(config_file: str, args: argparse.Namespace) -> float:
    """MiB at the peak of one piece of work in this process."""
    model, work = load(config_file, args), infer if args.memory == "inference" else train_step
    work(copy.deepcopy(model), noise_image((64, 64)))  # libraries load and threads start
    image = noise_image(args.size)
    with PeakMemory(next(model.parameters()).device) as memory:
        work(model, image)
    return float(memory.highest - memory.before) / 2**20


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a config; ratios are to the first."""
    models = [load(config_file, args) for config_file in args.configs]
    samples = seconds(models, args.size, args.rounds)
    rows = []
    for config_file, model, times in zip(args.configs, models, samples, strict=True):
        row: dict[str, Any] = {"config": Path(config_file).stem}
        row["parameters (10⁶)"] = sum(p.numel() for p in model.parameters()) / 1e6
        row["multiply-adds (10⁹)"] = multiply_adds(model, args.size)
        row["inference (s)"] = median(times)
        for what in MEASURED_MEMORY:
            row[f"{what} memory (MiB)"] = memory_in_a_fresh_process(config_file, what, args)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Figures and, in brackets, their ratio to those of the first row."""
    text = [
        [row["config"], *(f"{v:.4g} ({v / rows[0][k]:.2f})" for k, v in row.items() if k != "config")] for row in rows
    ]
    return tabulate(text, headers=list(rows[0]), tablefmt="pipe", disable_numparse=True)


def main() -> None:
    """Run the command line."""
    parser = command_parser(
        __doc__,
        "python projects/one_vs_two_networks/costs.py projects/one_vs_two_networks/configs/street/*.yaml",
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG.yaml")
    parser.add_argument(
        "--size", nargs=2, type=whole(64), default=(800, 1067), metavar=("H", "W"), help="of the input, px"
    )
    parser.add_argument("--rounds", type=whole(1), default=3, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    parser.add_argument("--memory", choices=MEASURED_MEMORY, help=argparse.SUPPRESS)
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args()
    args.size = tuple(args.size)
    if args.memory:
        print(peak_memory(args.configs[0], args))
        return
    rows = measure(args)
    print(table(rows))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps({"size": args.size, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
