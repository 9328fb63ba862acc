#!/usr/bin/env python
"""The training step against detectron2's built-in model: semantic loss, mapper, whole step. One table a command.

    training_step.py loss
    training_step.py mapper --image-root … --panoptic-root … --panoptic-json … --instances-json …
    training_step.py step [--memory]

Both sides alternate in one process; ``--memory`` measures each in a fresh process. See README.md.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from alternation import PeakMemory, Sides, alternate, memory_in_fresh_processes, print_rows
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from environment import add_output_argument, write_report
from PIL import Image
from torch.nn import functional as F

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.data import PanopticDatasetMapper, register_coco_panoptic
from panoptic_fpn_ext.data.targets import sem_seg_target
from panoptic_fpn_ext.index_masks import IndexMasks
from panoptic_fpn_ext.modeling.losses import upsampled_cross_entropy
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def main() -> None:
    """Measure one table, print it and write it as JSON."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(measure_memory(args)))
        return
    rows = memory_in_fresh_processes() if args.memory else alternate(SIDES[args.table](args), args.rounds, args.device)
    report = {
        "table": args.table,
        "memory": args.memory,
        "rows": rows,
    }
    write_report(args.output, report, args.device)
    print_rows(rows)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = command_parser(__doc__, "python projects/benchmark/training_step.py loss")
    parser.add_argument("table", choices=["loss", "mapper", "step"])
    parser.add_argument("--memory", action="store_true", help="extra peak memory instead of time")
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(1), default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=whole(1), nargs=2, default=(800, 1088), help="height and width, px")
    add_output_argument(parser, "training_step.json")
    dataset = [f"--{name}" for name in ("image-root", "panoptic-root", "panoptic-json", "instances-json")]
    for option in dataset:
        parser.add_argument(option, help="of a COCO panoptic dataset, for the mapper")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    missing = [option for option in dataset if getattr(args, option[2:].replace("-", "_")) is None]
    if args.table == "mapper" and missing:
        parser.error(f"the mapper needs a dataset: {', '.join(missing)} missing")
    return args


# -- what is measured -----------------------------------------------------------------------------------------------


def loss_sides(args: argparse.Namespace) -> Sides:
    """Forward and backward pass of the semantic loss: batch 2, 54 classes."""
    h, w = args.size
    logits = torch.randn(2, 54, h // 4, w // 4, device=args.device, requires_grad=True)
    targets = torch.randint(0, 54, (2, h, w), device=args.device)
    targets[:, : h // 12] = 255

    def plain(_: int) -> None:
        upsampled = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        F.cross_entropy(upsampled, targets, ignore_index=255).backward()
        logits.grad = None

    def ours(_: int) -> None:
        upsampled_cross_entropy(logits, targets, 4, 255).backward()
        logits.grad = None

    return {"detectron2": plain, "ours": ours}


def mapper_sides(args: argparse.Namespace) -> Sides:
    """One pass over the images that both can map; detectron2's mapper reads separated semantic files, made here."""
    register_coco_panoptic("benchmark", args.image_root, args.panoptic_root, args.panoptic_json)
    ours = {d["file_name"]: d for d in DatasetCatalog.get("benchmark")}
    theirs = {d["file_name"]: d for d in load_coco_json(args.instances_json, args.image_root)}
    names = sorted(ours.keys() & theirs.keys())
    folder = tempfile.mkdtemp()
    for name in names:
        theirs[name]["sem_seg_file_name"] = separated(ours[name], folder)
    cfg = zoo_cfg("PanopticFPNExt", "cpu")
    cfg.DATASETS.TRAIN = ("benchmark",)
    sides: Sides = {}
    for label, mapper, dicts in (
        ("detectron2", DatasetMapper(cfg, is_train=True), theirs),
        ("ours", PanopticDatasetMapper(cfg, is_train=True), ours),
    ):
        sides[label] = lambda seed, m=mapper, d=dicts: (np.random.seed(seed), [m(d[n]) for n in names])  # noqa: NPY002
    return sides


def separated(dataset_dict: dict[str, Any], folder: str) -> str:
    """Write what detectron2's prepare_panoptic_fpn.py would: things 0, stuff 1 … S, void 255."""
    categories = PanopticCategories.from_metadata(MetadataCatalog.get("benchmark"))
    target = sem_seg_target(
        read_panoptic_png(dataset_dict["pan_seg_file_name"]), dataset_dict["segments_info"], categories
    )
    path = os.path.join(folder, os.path.basename(dataset_dict["pan_seg_file_name"]))
    Image.fromarray(target.numpy().astype(np.uint8)).save(path)
    return path


def step_sides(args: argparse.Namespace) -> Sides:
    """Forward and backward pass and update of R50, batch 2, ten instances an image."""
    return {name: step_side(name, args) for name in ("detectron2", "ours")}


def step_side(name: str, args: argparse.Namespace) -> Callable[[int], None]:
    """One of the two models with the masks its own mapper gives."""
    torch.manual_seed(0)
    model = build_model(zoo_cfg({"detectron2": "PanopticFPN", "ours": "PanopticFPNExt"}[name], args.device)).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-9, momentum=0.9)
    batch = [random_image(i, args.size[0], args.size[1], compact=name == "ours") for i in range(2)]

    def step(seed: int) -> None:
        torch.manual_seed(seed)
        with EventStorage():
            losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    return step


def zoo_cfg(architecture: str, device: str) -> CfgNode:
    """detectron2's panoptic_fpn_R_50_1x with random weights."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = architecture, device, ""
    return cfg


def random_image(seed: int, h: int, w: int, compact: bool) -> dict[str, Any]:
    """A random image with ten ellipses as instances and stripes of stuff."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    index_map = np.zeros((h, w), np.uint8)
    for k in range(1, 11):
        cy, cx, ry, rx = rng.integers(0, h), rng.integers(0, w), rng.integers(20, h // 4), rng.integers(20, w // 4)
        index_map[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = k
    masks = IndexMasks(
        torch.from_numpy(index_map), torch.from_numpy(np.setdiff1d(np.unique(index_map), 0).astype(np.int64))
    )
    instances = Instances((h, w), gt_boxes=Boxes(masks.get_bounding_boxes().tensor))
    instances.gt_classes = torch.from_numpy(rng.integers(0, 80, len(masks)))
    instances.gt_masks = masks if compact else BitMasks(masks.tensor)
    sem_seg = torch.from_numpy(np.where(index_map > 0, 0, 1 + y // 16 % 53))
    image = torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8))
    return {"image": image, "instances": instances, "sem_seg": sem_seg, "height": h, "width": w}


SIDES: dict[str, Callable[[argparse.Namespace], Sides]] = {
    "loss": loss_sides,
    "mapper": mapper_sides,
    "step": step_sides,
}


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """What two calls of one side take on top of what was there: resident memory on a CPU, allocations on a GPU."""
    side = step_side(args.child, args) if args.table == "step" else SIDES[args.table](args)[args.child]
    with PeakMemory(args.device) as peak:
        side(0)
        side(1)
    return {"side": args.child, "before_mb": peak.before / 2**20, "extra_mb": (peak.highest - peak.before) / 2**20}


if __name__ == "__main__":
    run_command(main)
