"""A job that the tests of the launch start: it adds the ranks, and ends as it is told."""

import os
import signal
import time
from argparse import Namespace
from pathlib import Path

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from torch import distributed

from panoptic_fpn_ext.command import run_command
from panoptic_fpn_ext.engine.processes import process_group
from panoptic_fpn_ext.engine.processes.launch import launch_from_arguments


def main(args: Namespace) -> None:
    folder, mode = args.opts
    total = torch.tensor([comm.get_rank() + 1])
    if comm.get_world_size() > 1:
        distributed.all_reduce(total)
    result = f"{comm.get_local_rank()} of {comm.get_local_size()}, {total.item()}, {args.resume}"
    Path(folder, f"rank_{comm.get_rank()}").write_text(result)
    if comm.get_rank() == 1 and not args.resume:
        if mode in ("raise", "all raise"):
            raise KeyError("what rank 1 lacks")
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    if mode == "all raise":
        time.sleep(0.2)
        raise KeyError("what all lack")
    if mode == "raise" and not args.resume:
        time.sleep(600)  # where it cannot notice by itself


process_group.GRACE_S = 15.0  # in every process

if __name__ == "__main__":
    run_command(lambda: launch_from_arguments(main, default_argument_parser().parse_args()))
