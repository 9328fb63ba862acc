#!/usr/bin/env python
"""The whole road in one command: draw the embedded dataset, train on it, evaluate, leave images and a report.

A run that was interrupted goes on from its last checkpoint; after one that ended, the next starts afresh.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from tabulate import tabulate
from tqdm import tqdm

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.command import Interrupted, command_line, command_parser, run_command
from panoptic_fpn_ext.data import read_image
from panoptic_fpn_ext.engine import PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.imagenet_weights import save_efficientnet_lite
from panoptic_fpn_ext.engine.output_folder import hold_output_folder
from panoptic_fpn_ext.engine.runs import begin_console, begin_log, seed_process, unused_folder, write_whole
from panoptic_fpn_ext.engine.setup import add_verbose_argument, load_config
from panoptic_fpn_ext.panoptic_png import read_panoptic_png
from panoptic_fpn_ext.report import report_of_run
from panoptic_fpn_ext.visualization import contact_sheet, draw_panoptic, save_image

DEMO_CONFIG = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_efficientnet_lite0_demo.yaml"
NUM_IMAGES = 8
PHOTOGRAPHS_MODEL = "Facade-PanopticSegmentation/panoptic_fpn_efficientnet_lite2"
PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "facade" / "photographs"


def set_aside_finished_run(output: Path) -> None:
    """Let the next training start afresh if the last one ended, whose files are kept in a folder beside."""
    if (output / "results.json").exists():
        aside = output.rename(unused_folder(str(output)))
        print(f"The run in {output} has ended before: it is kept in {aside}. Starting afresh.")
    elif (output / "last_checkpoint").exists():
        last = (output / "last_checkpoint").read_text(encoding="utf-8")
        print(f"The run in {output} was interrupted: going on from {last}.")


def predict_photographs(folder: Path) -> Path:
    """A sheet of photographs and of what the released model for façades makes of them; returns its path."""
    predictor = PanopticPredictor(PHOTOGRAPHS_MODEL)
    rows = []
    for path in tqdm(sorted(PHOTOGRAPHS.glob("*.jpg")), desc="Photographs", unit="image", disable=None):
        bgr = read_image(str(path), "BGR")
        panoptic_seg, segments_info = predictor(bgr)["panoptic_seg"]
        rgb = bgr[:, :, ::-1]
        rows.append((rgb, draw_panoptic(rgb, panoptic_seg, segments_info, predictor.metadata, hatch_void=True)))
    sheet = folder / "photographs.jpg"
    save_image(sheet, contact_sheet(rows, ("photograph", "prediction"), cell_width=640), quality=90)
    return sheet


def initial_weights(config_file: str, folder: Path) -> list[str]:
    """Options that begin the training of the demo's own config with ImageNet weights, which a package brings."""
    if config_file != model_zoo.get_config_file(DEMO_CONFIG):
        return []
    path = folder / "efficientnet_lite0.pth"
    save_efficientnet_lite(path, "lite0")
    return ["MODEL.WEIGHTS", str(path)]


def train(cfg: CfgNode) -> dict[str, Any]:
    """Train and evaluate; returns detectron2's results."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    results: dict[str, Any] = trainer._last_eval_results  # of the evaluation that ends every training
    return results


def write_images(cfg: CfgNode, folder: Path) -> None:
    """Overlays of some validation images, and a sheet of image, ground truth and prediction."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    predictor = PanopticPredictor(cfg)
    dicts = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    rows = []
    for record in tqdm(dicts[:: math.ceil(len(dicts) / NUM_IMAGES)], desc="Writing images", unit="image", disable=None):
        bgr = read_image(record["file_name"], "BGR")
        rgb, truth = bgr[:, :, ::-1], read_panoptic_png(record["pan_seg_file_name"])
        drawn_truth = draw_panoptic(rgb, truth, record["segments_info"], predictor.metadata, hatch_void=True)
        panoptic_seg, segments_info = predictor(bgr)["panoptic_seg"]
        overlay = draw_panoptic(rgb, panoptic_seg, segments_info, predictor.metadata, hatch_void=True)
        save_image(folder / f"{Path(record['file_name']).stem}.png", overlay)
        rows.append((rgb, drawn_truth, overlay))
    sheet = contact_sheet(rows, ("image", "ground truth", "prediction"), cell_width=640)
    save_image(folder / "sheet.jpg", sheet, quality=90)


def pq_table(results: dict[str, float]) -> str:
    """PQ, SQ and RQ of all categories, things and stuff, in percent."""
    groups = {"All": "", "Things": "_th", "Stuff": "_st"}
    rows = [[group, *(results[metric + suffix] for metric in ("PQ", "SQ", "RQ"))] for group, suffix in groups.items()]
    return tabulate(rows, headers=["", "PQ", "SQ", "RQ"], floatfmt=".1f", tablefmt="pipe")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo."""
    parser = command_parser(
        __doc__, "python projects/panoptic_fpn/run_demo.py --output output/demo SOLVER.MAX_ITER 800"
    )
    parser.add_argument(
        "--config-file", default=model_zoo.get_config_file(DEMO_CONFIG), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--output", default="output/demo", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="as it is without: an interrupted run goes on")
    add_verbose_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options")
    args = parser.parse_args(arguments)
    begin_console(args)
    try:
        run(args)
    except KeyboardInterrupt as error:
        if str(error):  # it was said how to go on
            raise
        text = f"Interrupted. To go on from what is done: {command_line()}"
        print(text, file=sys.stderr)
        raise Interrupted(getattr(error, "signal_number", signal.SIGINT), text) from None


def run(args: argparse.Namespace) -> None:
    """The four steps, for the arguments of the command."""
    output, images = Path(args.output), Path(args.output, "images")
    set_aside_finished_run(output)
    images.mkdir(parents=True, exist_ok=True)
    print(f"1/4  What the released model {PHOTOGRAPHS_MODEL} makes of photographs", flush=True)
    photographs = predict_photographs(images)
    print(f"     {photographs}", flush=True)
    print("2/4  Dataset: synthetic street scenes", flush=True)
    opts = ["OUTPUT_DIR", str(output), *initial_weights(args.config_file, output), *args.opts]
    cfg = load_config(args.config_file, opts, [])
    hold_output_folder(cfg.OUTPUT_DIR)
    begin_log(cfg.OUTPUT_DIR, cfg.dump())
    write_whole(output / "config.yaml", cfg.dump())
    seed_process(cfg.SEED)
    print(f"3/4  Training ({cfg.SOLVER.MAX_ITER} iterations) and evaluation", flush=True)
    results = train(cfg)
    print(f"4/4  Images, in {images}, and the report", flush=True)
    write_images(cfg, images)
    report = report_of_run(str(output), str(output / "report.html"))[0]
    write_whole(output / "results.json", json.dumps(results, indent=2))
    print(f"\nOn {cfg.DATASETS.TEST[0]}, in percent:\n\n{pq_table(results['panoptic_seg'])}\n")
    print(f"Photographs, by the released model: {photographs}")
    print(f"Image, ground truth and prediction side by side: {images / 'sheet.jpg'}")
    print(f"Where the points of PQ went, image by image: {report}")
    print(f"Single overlays: {images}; model, log and all numbers: {output}")


if __name__ == "__main__":
    run_command(main)
