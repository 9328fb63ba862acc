#!/usr/bin/env python
"""Train or evaluate a model of a LazyConfig; arguments as detectron2's tools/lazyconfig_train_net.py has them."""

import argparse
import os
import sys
from typing import Any

from panoptic_fpn_ext.command import run_command
from panoptic_fpn_ext.engine import PanopticCheckpointer, argument_parser
from panoptic_fpn_ext.engine.lazy_config import setup_lazy
from panoptic_fpn_ext.engine.lazy_training import build_lazy_model, evaluate_lazily, train_lazily
from panoptic_fpn_ext.engine.overfit import NOT_LEARNT, add_overfit_argument, overfit_lazily, prepare_overfit
from panoptic_fpn_ext.engine.processes.launch import launch_from_arguments
from panoptic_fpn_ext.engine.runs import PROGRESS, say_evaluated, say_written

EXAMPLES = """example:
  python projects/panoptic_fpn/lazyconfig_train_net.py \\
      --config-file configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py \\
      train.output_dir=output/street train.max_iter=2000
"""


def main(args: argparse.Namespace) -> Any:
    """Run one process of the job; returns the evaluation results."""
    num_images = getattr(args, "overfit", None)
    if num_images is not None:
        prepare_overfit(args, lazy=True)
    cfg = setup_lazy(args)
    if num_images is not None:
        sys.exit(0 if overfit_lazily(cfg, num_images) else NOT_LEARNT)
    if args.eval_only:
        model = build_lazy_model(cfg)
        checkpointer = PanopticCheckpointer(model, cfg.train.output_dir, complete=True)
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
        results = evaluate_lazily(cfg, model, os.path.join(args.inference_folder, PROGRESS))
        say_evaluated(args.inference_folder)
        return results
    results = train_lazily(cfg, resume=args.resume)
    say_written(cfg.train.output_dir)
    return results


if __name__ == "__main__":
    parser = argument_parser(EXAMPLES, __doc__)
    add_overfit_argument(parser)
    run_command(lambda: launch_from_arguments(main, parser.parse_args()))
