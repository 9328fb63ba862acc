#!/usr/bin/env python
"""Train or evaluate a model of a config file; the arguments are those of detectron2's tools/train_net.py."""

import argparse
from typing import Any

from detectron2.evaluation import verify_results
from detectron2.utils import comm

from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer, argument_parser, setup
from panoptic_fpn_ext.engine.launch import launch_from_arguments


def main(args: argparse.Namespace) -> Any:
    """Run one process of the job; returns the evaluation results."""
    cfg = setup(args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    model = Trainer.build_model(cfg)
    PanopticCheckpointer(model, cfg.OUTPUT_DIR, complete=True).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    args = argument_parser().parse_args()
    print("Command line:", args)
    launch_from_arguments(main, args)
