#!/usr/bin/env python
"""Train or evaluate a model of a config file; the arguments are those of detectron2's tools/train_net.py."""

import argparse
import sys
from typing import Any

from panoptic_fpn_ext.command import run_command
from panoptic_fpn_ext.engine import Trainer, argument_parser, setup
from panoptic_fpn_ext.engine.overfit import NOT_LEARNT, add_overfit_argument, overfit, prepare_overfit
from panoptic_fpn_ext.engine.processes.launch import launch_from_arguments
from panoptic_fpn_ext.engine.runs import say_evaluated, say_written

EXAMPLES = """examples:
  train on a dataset of your own, go on after an interruption (add --resume), evaluate the result:
    python projects/panoptic_fpn/train_net.py \\
        --config-file configs/User-PanopticSegmentation/panoptic_fpn_efficientnet_lite0.yaml \\
        --register my_train IMAGES PNGS TRAIN.json --register my_val IMAGES PNGS VAL.json OUTPUT_DIR output/mine
    python projects/panoptic_fpn/train_net.py --eval-only --config-file output/mine/config.yaml \\
        --register my_val IMAGES PNGS VAL.json MODEL.WEIGHTS output/mine/model_final.pth
"""


def main(args: argparse.Namespace) -> Any:
    """Run one process of the job; returns the evaluation results."""
    num_images = getattr(args, "overfit", None)
    if num_images is not None:
        prepare_overfit(args)
    cfg = setup(args)
    if num_images is not None:
        sys.exit(0 if overfit(cfg, num_images) else NOT_LEARNT)
    if args.eval_only:
        results = Trainer.evaluate_checkpoint(cfg, args.inference_folder, resume=args.resume)
        say_evaluated(args.inference_folder)
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trained = trainer.train()
    say_written(cfg.OUTPUT_DIR)
    return trained


if __name__ == "__main__":
    parser = argument_parser(EXAMPLES, __doc__)
    add_overfit_argument(parser)
    run_command(lambda: launch_from_arguments(main, parser.parse_args()))
