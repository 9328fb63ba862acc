#!/usr/bin/env python
"""One session of an exported model for images of all sizes in random order: are the maps PyTorch's, does memory grow?

    python projects/benchmark/sizes.py SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow zoo model.onnx

Drawn streets from 64×64 px up, each with a score threshold of its own: 0, one that only its best instance reaches,
or 1. The file runs first, so memory is that of its session; then PyTorch predicts the same. Exit status 1: a
map differs in more than 0.01 % of its pixels, or in its segments.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import functools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.data.street.scene import draw_street
from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.engine.setup import load_prediction_config
from panoptic_fpn_ext.export import ExportedPredictor
from panoptic_fpn_ext.export.self_check import check_agreement

LEAST = 64


class Case(NamedTuple):
    """An image, uint8 (H, W, 3), and the least score of its instances."""

    image: Any
    threshold: float


def main() -> int:
    """Print the table; returns the exit status."""
    args = parse_args()
    exported = ExportedPredictor(args.file, threads=args.threads)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        memory = [megabytes()]
        for number, image in enumerate(draw_images(args.images, args.largest)):
            case = Case(image, threshold(number, exported, image))
            cases.append(case)
            torch.save(predict(exported, case)["panoptic_seg"], Path(folder) / f"{number}.pt")
            memory.append(megabytes())
        eager = PanopticPredictor(load_prediction_config(*config(args), []))
        wrong, different, pixels = compare(eager, cases, Path(folder))
    steps = sorted({0, len(cases) // 4, len(cases) // 2, len(cases)})
    print(tabulate([[i, f"{memory[i]:.0f} MB"] for i in steps], ["images predicted", "memory"]))
    things = sorted(count for count, _ in wrong)
    print(
        f"{len(cases)} images, {things[0]} to {things[-1]} instances in a map, {different} of {pixels} pixels differ."
    )
    bad = [i for i, (_, is_wrong) in enumerate(wrong) if is_wrong]
    print(f"Wrong: {[cases[i].image.shape[:2] for i in bad]}" if bad else "All maps are PyTorch's.")
    return bool(bad)


def parse_args() -> argparse.Namespace:
    """Command line."""
    name = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
    parser = command_parser(__doc__, f"python projects/benchmark/sizes.py {name} zoo exported/model.onnx")
    parser.add_argument("config", metavar="CONFIG", help="of the model that was exported: a file or a zoo name")
    parser.add_argument("weights", metavar="WEIGHTS", help="a checkpoint, or zoo for the published one")
    parser.add_argument("file", metavar="FILE", help="the exported model")
    parser.add_argument("--images", type=whole(1), default=50)
    parser.add_argument(
        "--largest", type=whole(1), nargs=2, default=(1024, 1024), metavar=("H", "W"), help="one image has this size"
    )
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="as in the export")
    parser.add_argument("--threads", type=whole(0), default=0, help="of the file; 0: all cores")
    return parser.parse_args()


def config(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Config file and options of the eager model."""
    path = args.config if Path(args.config).is_file() else model_zoo.get_config_file(args.config)
    weights = model_zoo.get_checkpoint(args.config) if args.weights == "zoo" else args.weights
    only = ("MODEL.PANOPTIC_FPN.OUTPUTS", "('panoptic_seg',)", "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights)
    return path, [*args.opts, *only]


def draw_images(count: int, largest: tuple[int, int]) -> Iterator[Any]:
    """Images of 64×64 px, of the largest size, and of sizes between, shuffled."""
    rng = random.Random(0)
    sizes = [(LEAST, LEAST), tuple(largest)]
    sizes += [(rng.randint(LEAST, 1024), rng.randint(LEAST, 1024)) for _ in range(count - 2)]
    rng.shuffle(sizes)
    for number, (height, width) in enumerate(sizes):
        yield np.ascontiguousarray(draw_street(0, count, number, height, width).image[:, :, ::-1])


def threshold(number: int, exported: ExportedPredictor, image: Any) -> float:
    """In turns 0, one that only the best instance of the image reaches, which the file predicts for it, and 1."""
    if number % 3 != 1:
        return float(number % 3 == 2)
    scores = [s["score"] for s in predict(exported, Case(image, 0.0))["panoptic_seg"][1] if s["isthing"]]
    return float(sum(sorted([*scores, 0.0, 0.0], reverse=True)[:2]) / 2)


def predict(predictor: Any, case: Case) -> dict[str, Any]:
    """With the case's threshold, which is an input of a file and an attribute of a combiner."""
    if isinstance(predictor, ExportedPredictor):
        predictor.set_thresholds({"instance_score_threshold": case.threshold})
    else:
        predictor.model.combiner.instance_score_threshold = case.threshold
    return dict(predictor(case.image))


def answer(result: dict[str, Any], image: Any) -> dict[str, Any]:
    """What a predictor said before."""
    return result


def compare(eager: Any, cases: list[Case], folder: Path) -> tuple[list[tuple[int, bool]], int, int]:
    """Of each case the instances in its map and whether it is wrong; pixels that differ, and all."""
    wrong, different, pixels = [], 0, 0
    for number, case in enumerate(cases):
        found = {"panoptic_seg": torch.load(folder / f"{number}.pt", weights_only=True)}
        sides = {"file": functools.partial(answer, found)}
        agreement = check_agreement([case.image], functools.partial(answer, predict(eager, case)), sides)[0]["file"]
        things = sum(info["isthing"] for info in found["panoptic_seg"][1])
        wrong.append((things, not agreement.is_good))
        different += agreement.pixels - agreement.equal
        pixels += agreement.pixels
    return wrong, different, pixels


def megabytes() -> float:
    """Memory that this process has now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    run_command(main)
