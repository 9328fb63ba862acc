"""The training commands in processes of their own, which may be killed at any moment.

They are forked from a server that has imported everything once, and each does what the command line does. Some die
while they write a file. Into a file they write which images a step sees, and which an evaluation has done:
``[iteration, rank, [image ids]]``, a line.
"""

import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from bad_input_data import project_script
from detectron2.utils import comm
from places import REPOSITORY

from panoptic_fpn_ext.command import run_command
from panoptic_fpn_ext.engine import argument_parser
from panoptic_fpn_ext.engine.evaluating import evaluation_progress
from panoptic_fpn_ext.engine.processes.launch import launch_from_arguments
from panoptic_fpn_ext.engine.training.train_step import TrainStep

EVALUATION = -1
"""What the lines of an evaluation have for an iteration."""
BEGIN = -2
"""What the line has for an iteration that tells where another job begins."""

_ports = itertools.count(20000 + os.getpid() % 10000)


@lru_cache(maxsize=1)
def _server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["real_processes"])
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


class Job:
    """A command that runs in one process, or in several as torchrun starts them."""

    def __init__(
        self, script: str, arguments: Sequence[str], samples: Path, processes: int = 1, dies_at: int = 0
    ) -> None:
        """``dies_at``: SIGKILL before so many calls of ``os.fsync`` and ``os.replace``, which write checkpoints."""
        self.samples, self.log = samples, samples.with_suffix(".log")
        with self.samples.open("a") as file:
            file.write(json.dumps([BEGIN, 0, []]) + "\n")
        self._before = len(self.lines())
        port = str(next(_ports))
        self._processes: list[BaseProcess] = []
        for rank in range(processes):
            environment = {"SAMPLES": str(samples), "DIES_AT": str(dies_at)}
            if processes > 1:
                environment |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            process = _server().Process(target=_run, args=(script, list(arguments), environment, str(self.log)))
            process.start()
            self._processes.append(process)

    def lines(self) -> list[Any]:
        """What all jobs wrote to the file of samples; the last line may be half there."""
        text = self.samples.read_text() if self.samples.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def kill(self, lines: int, seconds: float = 0.0, number: int = signal.SIGKILL) -> "Job":
        """A signal to all processes, so many seconds after this job has written so many lines."""
        while any(p.is_alive() for p in self._processes) and len(self.lines()) < self._before + lines:
            time.sleep(0.01)
        time.sleep(seconds)
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)
        return self

    def wait(self) -> list[int]:
        """Exit statuses; the log is shown where one is neither 0 nor that of a signal."""
        for process in self._processes:
            process.join()
        statuses = [int(p.exitcode or 0) for p in self._processes]
        assert set(statuses) <= {0, -9, 130, 143}, self.log.read_text()[-3000:]
        return statuses


def samples(lines: Sequence[Any]) -> dict[int, list[int]]:
    """Image ids of each iteration, over all processes, as they were seen when it was last done."""
    found: dict[int, dict[int, list[int]]] = {}
    job: dict[int, dict[int, list[int]]] = {}
    for iteration, rank, ids in lines:
        if iteration == BEGIN:
            job = {}
        elif iteration != EVALUATION:
            # The processes of a job write in any order; what an earlier job saw in this iteration is forgotten.
            found[iteration] = job.setdefault(iteration, {})
            found[iteration][rank] = ids
    return {i: [one for rank in sorted(parts) for one in parts[rank]] for i, parts in sorted(found.items())}


def weights(folder: Path, name: str = "model_final.pth") -> dict[str, torch.Tensor]:
    """Those of a checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(folder / name, weights_only=True)["model"]
    return found


def _run(script: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    torch.set_num_threads(1)
    sys.argv = [script, *arguments]
    _record_samples()
    if int(environment["DIES_AT"]):
        _die_at(int(environment["DIES_AT"]))
    module = project_script(f"panoptic_fpn/{script}")
    parser = argument_parser()
    parser.set_defaults(overfit=None)
    run_command(lambda: launch_from_arguments(module.main, parser.parse_args(arguments)))


def _die_at(most: int) -> None:
    calls = itertools.count(1)

    def dying(call: Callable[..., None]) -> Callable[..., None]:
        def die_or(*args: Any, **kwargs: Any) -> None:
            if next(calls) == most:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args, **kwargs)

        return die_or

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)  # type: ignore[assignment]


def _record_samples() -> None:
    forward_backward, process = TrainStep.forward_backward, evaluation_progress._Progress.process

    def write(iteration: int, batch: Any) -> None:
        with open(os.environ["SAMPLES"], "a", encoding="utf-8") as f:
            f.write(json.dumps([iteration, comm.get_rank(), [one["image_id"] for one in batch]]) + "\n")

    def recorded_step(self: TrainStep, batch: Any) -> Any:
        write(self.iter, batch)
        return forward_backward(self, batch)

    def recorded_evaluation(self: Any, inputs: Any, outputs: Any) -> None:
        process(self, inputs, outputs)
        write(EVALUATION, inputs)

    TrainStep.forward_backward = recorded_step
    evaluation_progress._Progress.process = recorded_evaluation
    evaluation_progress.SAVE_EVERY_S = evaluation_progress._REST = 0  # after each image
