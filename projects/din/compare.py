#!/usr/bin/env python
"""DIN's way of combining against the paper's heuristic, on the same raw outputs of trained models.

    compare.py [MODEL …] [--images N] [--json FILE] [--register …] [--opts KEY VALUE …]

MODEL is a name that the predictor knows; without one, all models that come with the package and whose dataset is
embedded or registered. Each is measured on the datasets of its ``DATASETS.TEST``.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from tabulate import tabulate
from tqdm import tqdm

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.checkpoints.checkpoint import PanopticCheckpointer
from panoptic_fpn_ext.engine.data_descriptions import add_register_argument
from panoptic_fpn_ext.engine.device import synchronize
from panoptic_fpn_ext.engine.setup import load_config
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.model_zoo import get_config, published
from panoptic_fpn_ext.modeling import build_panoptic_combiner
from panoptic_fpn_ext.modeling.sem_seg_head import logits_stride

COMBINERS = ("HeuristicCombiner", "DINCombiner")
METRICS = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")
# Cityscapes val, table 5 of the Panoptic FPN paper: DIN learned from coarse annotations too.
OF_THE_PAPER = [
    ["the paper: DIN", "Cityscapes val", "its own network", 53.8, None, None, 42.5, 62.1],
    ["the paper: Panoptic FPN R101", "Cityscapes val", "HeuristicCombiner", 58.1, None, None, 52.0, 62.5],
]


def combiners_of(cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
    """Both, with the thresholds of a config."""
    cfg = cfg.clone()
    cfg.defrost()
    found = {}
    for name in COMBINERS:
        cfg.MODEL.PANOPTIC_FPN.COMBINE.NAME = name
        found[name] = build_panoptic_combiner(cfg, sem_seg_stride=logits_stride(model.sem_seg_head))
    return found


def load(name: str, opts: Sequence[str], registrations: Sequence[list[str]]) -> tuple[CfgNode, torch.nn.Module]:
    """A trained model and its config."""
    cfg = load_config(name, list(opts), list(registrations), eval_only=True)
    model = build_model(cfg).eval()
    PanopticCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    return cfg, model


def combined(combiner: Any, raw: Any, inputs: dict[str, Any]) -> tuple[tuple[Any, Any], float]:
    """The panoptic map of one image, and the seconds it took."""
    size = inputs["height"], inputs["width"]
    image = {"image": inputs["image"]} if getattr(combiner, "needs_image", False) else {}
    synchronize(raw.sem_seg_logits.device)
    start = time.perf_counter()
    found = combiner(raw.instances[0], raw.sem_seg_logits[0], raw.image_sizes[0], size, **image)
    synchronize(raw.sem_seg_logits.device)
    return (found.panoptic_seg, found.segments_info), time.perf_counter() - start


def measure(cfg: CfgNode, model: Any, dataset: str, num_images: int) -> dict[str, dict[str, float]]:
    """Metrics in percent and seconds an image, by combiner; all see the same raw outputs."""
    combiners = combiners_of(cfg, model)
    loader = Trainer.build_test_loader(cfg, dataset)
    total = min(num_images or len(loader), len(loader))
    MetadataCatalog.get(dataset).image_ids = [one["image_id"] for one in DatasetCatalog.get(dataset)[:total]]
    evaluators = {name: PanopticQualityEvaluator(dataset) for name in combiners}
    seconds = dict.fromkeys(combiners, 0.0)
    for inputs in tqdm(itertools.islice(loader, total), total=total, desc=dataset, unit="image"):
        raw = model.raw_outputs(inputs)
        for name, combiner in combiners.items():
            panoptic, spent = combined(combiner, raw, inputs[0])
            evaluators[name].process(inputs, [{"panoptic_seg": panoptic}])
            seconds[name] += spent
    found = {name: evaluator.evaluate() or {} for name, evaluator in evaluators.items()}
    return {name: {**found[name]["panoptic_seg"], "seconds": seconds[name] / total} for name in combiners}


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, with what the paper says of the two systems below."""
    cells = [[*(row[key] for key in ("model", "dataset", "combiner", *METRICS, "seconds"))] for row in rows]
    headers = ["model", "dataset", "combiner", *METRICS, "s an image"]
    floats = ("", "", "", *[".1f"] * len(METRICS), ".3f")
    return tabulate([*cells, *OF_THE_PAPER], headers=headers, floatfmt=floats, missingval="–", tablefmt="pipe")


def main() -> None:
    """Measure every model on its datasets and print one table."""
    args = argument_parser().parse_args()
    names = args.models or default_models([name for name, *_ in args.register])
    rows = []
    for name in names:
        used = [one[0] for one in args.register] if args.models else get_config(name).DATASETS.TEST
        cfg, model = load(name, args.opts, [one for one in args.register if one[0] in used])
        for dataset in cfg.DATASETS.TEST:
            found = measure(cfg, model, dataset, args.images)
            rows += [
                {"model": Path(name).stem, "dataset": dataset, "combiner": combiner, **figures}
                for combiner, figures in found.items()
            ]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def default_models(registered: Sequence[str]) -> list[str]:
    """The models that come with the package and whose datasets are there: the embedded ones, and those registered."""
    found = []
    for name in (name for name, entry in published().items() if "://" not in entry["file"]):
        missing = [d for d in get_config(name).DATASETS.TEST if not d.startswith("synthetic_") and d not in registered]
        if missing:
            print(f"Left out: {name}, whose dataset needs --register {missing[0]} IMAGES PNGS JSON", file=sys.stderr)
        else:
            found.append(name)
    return found


def argument_parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = command_parser(
        __doc__,
        "python projects/din/compare.py\n"
        "python projects/din/compare.py output/model_final.pth --register city_val images pngs city_val.json",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="default: those that come with the package, see above",
    )
    parser.add_argument("--images", type=whole(0), default=0, metavar="N", help="take the first N of each dataset")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    return parser


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_command(main)
