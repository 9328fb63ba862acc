"""Starting the processes of a job, and ending them."""

import argparse
import gc
from collections.abc import Callable
from typing import Any

from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed

__all__ = ["end_process_groups", "launch_from_arguments"]


def launch_from_arguments(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in every process of the job that detectron2's arguments describe.

    Args:
        main: a function of a module's top level.
        args: of detectron2's ``default_argument_parser``.
    """
    launch(
        _run_and_end,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(main, args),
    )


def _run_and_end(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    main(args)
    end_process_groups()


def end_process_groups() -> None:
    """End the communication of a process whose work is done; to be called by all processes of the job.

    The threads of a process group that lives on into the end of the interpreter may still want to run Python code, and
    the process is then aborted, its work done, with an exit code that fails the whole job. detectron2 keeps its groups
    for good, so they are taken from it first.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    comm.synchronize()
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    gc.collect()  # data-parallel models hold groups too, and trainers hold one another
    distributed.destroy_process_group()
