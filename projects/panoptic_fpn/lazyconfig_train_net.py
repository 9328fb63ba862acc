#!/usr/bin/env python
"""Train or evaluate a model of a LazyConfig; arguments as detectron2's tools/lazyconfig_train_net.py has them."""

import argparse
from typing import Any

from panoptic_fpn_ext.engine import PanopticCheckpointer, argument_parser
from panoptic_fpn_ext.engine.launch import launch_from_arguments
from panoptic_fpn_ext.engine.lazy_config import setup_lazy
from panoptic_fpn_ext.engine.lazy_training import build_lazy_model, evaluate_lazily, train_lazily


def main(args: argparse.Namespace) -> Any:
    """Run one process of the job; returns the evaluation results."""
    cfg = setup_lazy(args)
    if not args.eval_only:
        return train_lazily(cfg, resume=args.resume)
    model = build_lazy_model(cfg)
    checkpointer = PanopticCheckpointer(model, cfg.train.output_dir, complete=True)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    return evaluate_lazily(cfg, model)


if __name__ == "__main__":
    args = argument_parser().parse_args()
    print("Command line:", args)
    launch_from_arguments(main, args)
