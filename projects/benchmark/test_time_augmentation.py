#!/usr/bin/env python
"""Peak memory of a prediction with test-time augmentation against one view at its largest size, a process each.

Both predict the same image with the same weights and all outputs. What the process holds before is not counted, nor is
what libraries and threads take at their first call.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import json
import sys

import numpy as np
import torch
from alternation import PeakMemory
from environment import add_output_argument, write_report

from panoptic_fpn_ext.command import child_output, command_parser, run_command, whole
from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.engine.memory import returning_memory
from panoptic_fpn_ext.engine.setup import read_config

ZOO = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
LARGEST, ALL = "one view at the largest size", "all views"


def main() -> None:
    """Measure, print and write JSON."""
    args = parse_args()
    if args.child:
        print(json.dumps(peak(args, augmented=args.child == ALL)))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--child"]
    peaks = {name: json.loads(_output([*command, name]).splitlines()[-1]) for name in (LARGEST, ALL)}
    for name, size in peaks.items():
        print(f"{name}: {size / 2**20:.0f} MiB, {size / peaks[LARGEST]:.2f} x")
    write_report(args.output, {"peaks": peaks})


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = command_parser(__doc__, "python projects/benchmark/test_time_augmentation.py --sizes 480 640 800")
    parser.add_argument("--config-file", default=ZOO, help="any that PanopticPredictor takes (default: %(default)s)")
    parser.add_argument("--image", type=whole(1), nargs=2, default=(480, 640), help="height and width, px")
    parser.add_argument("--sizes", type=whole(1), nargs="+", default=(480, 640, 800), help="of the shorter side, px")
    add_output_argument(parser, "test_time_augmentation.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def peak(args: argparse.Namespace, *, augmented: bool) -> int:
    """Bytes above what the process holds once the model is loaded."""
    cfg = read_config(args.config_file, [], trained=True)
    cfg.merge_from_list(["TEST.AUG.ENABLED", augmented, "TEST.AUG.MIN_SIZES", tuple(args.sizes)])
    unbounded = 100 * max(args.sizes)
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", max(args.sizes), "INPUT.MAX_SIZE_TEST", unbounded])
    cfg.TEST.AUG.MAX_SIZE = unbounded
    predictor = PanopticPredictor(cfg)
    with torch.no_grad():
        getattr(predictor.model, "model", predictor.model)([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])
    height, width = args.image
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with PeakMemory(cfg.MODEL.DEVICE) as memory:
        predictor(image)
    return int(memory.highest - memory.before)


def _output(command: list[str]) -> str:
    return child_output(command, returning_memory())


if __name__ == "__main__":
    run_command(main)
