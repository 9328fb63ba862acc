#!/usr/bin/env python
"""PQ and time of a model by precision: float32 and bfloat16, in PyTorch and OpenVINO, and 8-bit integers in OpenVINO.

All sides predict each image of a dataset, one after the other, from the image in memory to the panoptic map. What the
CPU, or the folder of exported files, does not have is left out, and that is said. See README.md.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from environment import write_report
from tabulate import tabulate
from tqdm import tqdm

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.command import command_parser, run_command
from panoptic_fpn_ext.data import read_image
from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.engine.data_descriptions import add_register_argument
from panoptic_fpn_ext.engine.setup import load_config
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.export import ExportedPredictor

ZOO = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
METRICS = ("PQ", "SQ", "RQ")
OURS = {"ours": "float32", "ours, bfloat16": "bfloat16"}
FILES = {
    "openvino": ("model.xml", "float32"),
    "openvino, bfloat16": ("model.xml", "bfloat16"),
    "openvino, int8": ("model_int8.xml", "float32"),
}


def main() -> None:
    """Measure, print the table and write it as JSON."""
    args = parse_args()
    # The default outputs include those for AP and mIoU, which exported files may not have.
    opts = ["MODEL.PANOPTIC_FPN.OUTPUTS", "['panoptic_seg']", "OUTPUT_DIR", str(args.folder), *args.opts]
    cfg = load_config(args.config_file, opts, args.register, eval_only=True)
    (dataset,) = cfg.DATASETS.TEST
    sides = dict(open_sides(cfg, args.exported))
    rows = measure(sides, dataset, DatasetCatalog.get(dataset), args.folder)
    cells = [
        [r["side"], *(f"{r[metric]:.2f}" for metric in METRICS), f"{r['seconds']:.3f}", f"{r['faster']:.2f}×"]
        for r in rows
    ]
    print(tabulate(cells, headers=["", *METRICS, "s an image", "faster"], tablefmt="pipe", disable_numparse=True))
    report = {"model": args.config_file, "dataset": dataset, "rows": rows}
    write_report(args.folder / "precisions.json", report, more_packages=("openvino",))


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = command_parser(__doc__, "OMP_NUM_THREADS=2 python projects/benchmark/precisions.py --exported exported")
    parser.add_argument("--config-file", default=ZOO, help="what train_net.py --eval-only takes (default: %(default)s)")
    parser.add_argument("--exported", type=Path, help="a folder with model.xml and model_int8.xml of the same model")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("output/benchmark/precisions"),
        help="of files and figures; default: %(default)s",
    )
    add_register_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options")
    return parser.parse_args()


def open_sides(cfg: CfgNode, exported: Path | None) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """What predicts an image, by name."""
    threads = torch.get_num_threads()
    for name in (*OURS, *(FILES if exported else ())):
        try:
            if name in OURS:
                predictor = PanopticPredictor(cfg)
                predictor.model = optimize_for_inference(predictor.model, precision=OURS[name])
                yield name, predictor
            else:
                assert exported is not None
                file, precision = FILES[name]
                yield name, ExportedPredictor(exported / file, threads=threads, precision=precision)
        except (ValueError, FileNotFoundError) as error:
            print(f"{name} is left out: {error}")


def measure(
    sides: dict[str, Callable[[Any], Any]], dataset: str, dicts: list[dict[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """PQ and the median of the seconds an image, by side."""
    evaluators = {name: PanopticQualityEvaluator(dataset, str(folder / name.replace(", ", "_"))) for name in sides}
    for evaluator in evaluators.values():
        evaluator.reset()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number, record in enumerate(tqdm(dicts, desc="Images", unit="image", disable=None)):
        image = read_image(record["file_name"], "BGR")
        names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]  # none is always the first
        for name in names:
            sides[name](image)  # sizes are prepared, algorithms chosen
            start = time.perf_counter()
            output = sides[name](image)
            seconds[name].append(time.perf_counter() - start)
            evaluators[name].process([record], [output])
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    reference = next(iter(medians.values()))
    rows = []
    for name, evaluator in evaluators.items():
        found = evaluator.evaluate()
        assert found is not None  # it is so in processes that are not the first
        row = {metric: found["panoptic_seg"][metric] for metric in METRICS}
        rows.append({"side": name, **row, "seconds": medians[name], "faster": reference / medians[name]})
    return rows


if __name__ == "__main__":
    run_command(main)
