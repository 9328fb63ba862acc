"""How the processes of a run start, in one place: here, by torchrun or by SLURM."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from detectron2.utils import comm
from torch.distributed import Store, TCPStore

from ...command import num_cores, run_command
from .process_group import WHY_KILLED, connect, end_process_groups, joined
from .rendezvous import Rendezvous, find_rendezvous

__all__ = ["end_process_groups", "launch_from_arguments"]

logger = logging.getLogger(__name__)

# How long to wait for processes that may not exist.
UNCERTAIN_TIMEOUT = timedelta(minutes=1)
Main = Callable[[argparse.Namespace], Any]


def launch_from_arguments(main: Main, args: argparse.Namespace) -> None:
    """Run ``main(args)`` in every process of the job.

    That is the job that torchrun or ``srun`` has started, of which this process is one; else the one that detectron2's
    arguments describe, whose processes are started here; else this process alone. Inside ``main``, detectron2's `comm`
    knows the job. ``args.resume`` is set where torchrun has restarted a job that failed.

    Args:
        main: a function of a module's top level.
        args: of detectron2's ``default_argument_parser``.

    Raises:
        ValueError: fewer than one process is asked for, or several both by the environment and by the arguments.
        Exception: what ``main`` raised, if no other process of the job has failed before.
        SystemExit: another process has failed. It has said why, as :func:`~panoptic_fpn_ext.command.run_command` does.
    """
    for option, number in (("--num-gpus", args.num_gpus), ("--num-machines", args.num_machines)):
        if number < 1:
            raise ValueError(f"{option} must be at least 1, got {number}. A machine without a GPU has 1, too.")
    job = find_rendezvous(os.environ)
    asked = args.num_gpus * args.num_machines
    store = _meet(job, asked)
    if job is not None and store is not None:
        with joined(job, store):
            if asked > 1:
                raise ValueError(
                    f"{job.launcher} has started the {job.world_size} processes of this job already: "
                    "leave out --num-gpus, --num-machines, --machine-rank and --dist-url."
                )
            _run(main, args)
    elif asked > 1:
        _start_processes(main, args)
    else:
        _run(main, args)


def _meet(job: Rendezvous | None, asked: int) -> Store | None:
    """The store of a job that exists; SLURM's variables do not say so for sure everywhere."""
    if job is None or (not job.is_certain and asked > 1):
        return None
    if job.is_certain:
        return connect(job)
    try:
        return connect(job, UNCERTAIN_TIMEOUT)
    except ConnectionError:
        logger.warning(
            f"SLURM counts {job.world_size} tasks, but no other has come within {UNCERTAIN_TIMEOUT.seconds} s: "
            "this process runs alone. Start it with srun to run all of them."
        )
        return None


def _run(main: Main, args: argparse.Namespace) -> None:
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if any(comm.all_gather(restarts)) and "resume" in args:
        args.resume = True
    main(args)


def _start_processes(main: Main, args: argparse.Namespace) -> None:
    """Start the processes of this machine and wait for them; all end when one fails."""
    url, server = args.dist_url, None
    if args.num_machines == 1:
        # Of the ports that are free; detectron2's default is the same for all runs of a user.
        server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        url = f"tcp://127.0.0.1:{server.port}"
    elif "://" not in url or "127.0.0.1" in url:
        raise ValueError(f"--num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT, HOST being machine 0.")
    first = Rendezvous(
        "--num-gpus",
        args.machine_rank * args.num_gpus,
        args.num_machines * args.num_gpus,
        str(args.machine_rank),
        url,
        is_hosted=server is not None,
    )
    processes = torch.multiprocessing.start_processes(
        _work, (main, args, first, sys.orig_argv), args.num_gpus, join=False, start_method="spawn"
    )
    _supervise(processes)


def _work(local_rank: int, main: Main, args: argparse.Namespace, first: Rendezvous, command: list[str]) -> None:
    """One of the processes that :func:`_start_processes` starts."""
    # Ctrl-C reaches the starting process alone, which hands it on: once, wherever it comes from.
    os.setpgrp()
    sys.orig_argv = command  # what it says of how to go on is for the user
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, num_cores() // args.num_gpus))
    run_command(lambda: _take_part(first._replace(rank=first.rank + local_rank), main, args))


def _take_part(job: Rendezvous, main: Main, args: argparse.Namespace) -> None:
    with joined(job, connect(job)):
        main(args)


def _supervise(processes: Any) -> None:
    """Wait for processes; end with the exit code of the one that fails. It has said why, unless it was killed."""
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # it reports each process that it ends
    try:
        while not processes.join():
            pass
    except KeyboardInterrupt as interruption:
        for process in processes.processes:
            if process.is_alive():
                os.kill(process.pid, getattr(interruption, "signal_number", signal.SIGINT))
        for process in processes.processes:
            process.join()
        sys.exit(max(1, processes.processes[0].exitcode))
    except torch.multiprocessing.ProcessExitedException:
        for rank, process in enumerate(processes.processes):
            if process.exitcode < 0 and process.exitcode != -signal.SIGTERM:
                name = signal.Signals(-process.exitcode).name
                sys.exit(f"Process {rank} of {len(processes.processes)} was ended by {name} {WHY_KILLED}.")
        sys.exit(max(process.exitcode for process in processes.processes))
