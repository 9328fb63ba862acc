#!/usr/bin/env python
"""Images a second by batch size, on images of one size and on a mix: ``python projects/benchmark/batches.py``."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from environment import add_output_argument, write_report
from PIL import Image
from tabulate import tabulate

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine import PanopticPredictor

MODEL = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
SIZES = {"one size": [(160, 256)], "a mix of sizes": [(160, 256), (256, 160), (200, 200), (120, 256)]}


def draw(folder: Path, sizes: list[tuple[int, int]], count: int) -> list[str]:
    """Write images of noise as JPEGs, sizes in turn."""
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.jpg"))
        Image.fromarray(small).resize(sizes[number % len(sizes)][::-1]).save(paths[-1])
    return paths


def rate(predictor: PanopticPredictor, paths: list[str], batch_size: int) -> float:
    """Images a second, reading included."""
    begin = time.perf_counter()
    failed = [one.error for one in predictor.stream(paths, batch_size) if one.error is not None]
    assert not failed, failed
    return len(paths) / (time.perf_counter() - begin)


def main() -> None:
    """Print the table and write the JSON."""
    parser = command_parser(__doc__, "python projects/benchmark/batches.py --images 32")
    parser.add_argument("--model", default=MODEL, help="config, zoo name or checkpoint")
    parser.add_argument("--images", type=whole(1), default=32, help="images a run")
    parser.add_argument("--runs", type=whole(1), default=3, help="runs of which the median counts")
    parser.add_argument("--batch-sizes", type=whole(1), nargs="+", default=[1, 2, 4, 8])
    add_output_argument(parser, "batches.json")
    args = parser.parse_args()
    predictor = PanopticPredictor(args.model)
    rows: dict[str, dict[int, float]] = {}
    for name, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = draw(Path(folder), sizes, args.images)
            rate(predictor, paths[:8], 1)
            runs: dict[int, list[float]] = {size: [] for size in args.batch_sizes}
            for _ in range(args.runs):  # in turn, so that what else runs meets all of them
                for size in args.batch_sizes:
                    runs[size].append(rate(predictor, paths, size))
        rows[name] = {size: statistics.median(rates) for size, rates in runs.items()}
    table = [[name, *found.values()] for name, found in rows.items()]
    print(tabulate(table, headers=["images a second", *map(str, args.batch_sizes)], floatfmt=".1f"))
    write_report(args.output, {"model": args.model, "images_per_second": rows})


if __name__ == "__main__":
    run_command(main)
