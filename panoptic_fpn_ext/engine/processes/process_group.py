"""The processes of a job as one: they join, and what ends one ends all."""

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore

from .rendezvous import Rendezvous

__all__ = ["connect", "end_process_groups", "joined"]

# How long the processes wait for one another in the beginning.
JOIN_TIMEOUT = timedelta(minutes=10)
# How long a process may go on after another has failed: it may be writing a checkpoint.
GRACE_S = 20.0
POLL_S = 1.0
WHY_KILLED = "(where memory runs out, the system does that)"
_FAILURE = "failure"
# What gloo and NCCL say where the other side has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


def connect(job: Rendezvous, timeout: timedelta = JOIN_TIMEOUT) -> Store:
    """The key-value store through which the processes of a job find one another, once all of them are there.

    Raises:
        ConnectionError: process 0 is not there, or the others have not come in time.
    """
    try:
        if job.is_hosted:
            host, _, port = job.url.removeprefix("tcp://").rpartition(":")
            store: Store = TCPStore(host, int(port), job.world_size, is_master=False, timeout=timeout)
        else:
            store, _, _ = next(distributed.rendezvous(job.url, job.rank, job.world_size, timeout=timeout))
        return PrefixStore(_name_attempt(job, store, timeout), store)
    except (RuntimeError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}" if job.url == "env://" else job.url
        raise ConnectionError(
            f"Process {job.rank} of {job.world_size} ({job.launcher}) waited {timeout.total_seconds():.0f} s for the "
            f"others at {place}: {str(error).splitlines()[0]}"
        ) from error


def _name_attempt(job: Rendezvous, store: Store, timeout: timedelta) -> str:
    """A name on which the processes that are there agree.

    When torchrun restarts a job, the store may still have what the failed processes left, where new ones would find the
    addresses of dead ones; and not all machines count a restart. So process 0 answers each process by a word that only
    that one knows.
    """
    word, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(f"word_{job.rank}", word)
    if job.rank > 0:
        name = store.get(f"name_for_{word}").decode()
        store.set(f"{name}_{job.rank}", "known")
        return name
    missing = set(range(1, job.world_size))
    while missing:
        for rank in sorted(missing):
            if store.check([f"word_{rank}"]):
                store.set(f"name_for_{store.get(f'word_{rank}').decode()}", word)
        missing = {rank for rank in missing if not store.check([f"{word}_{rank}"])}
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of them did not come.")
        time.sleep(0.05)
    return word


@contextmanager
def joined(job: Rendezvous, store: Store) -> Iterator[None]:
    """Be a process of a job: detectron2's `comm` works inside as under its own `launch`.

    An exception ends all processes within seconds. It leaves the block of the process in which it was raised first; the
    others end with the exit code 1, one process of each other machine with a line that says what happened.
    """
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(
        backend,
        store=PrefixStore("default_pg", store),
        rank=job.rank,
        world_size=job.world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    _create_local_groups(comm.all_gather(job.node))
    failures = _Failures(job, PrefixStore("failures", store))
    failures.start()
    try:
        with _interruptions_left_to_process_0(failures):
            if backend == "nccl":
                _choose_gpu(job)
            comm.synchronize()  # as detectron2: processes start late, and a time-out counts from here
            yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            failures.end_with(error)
            raise
    failures.stop()  # before process 0, which may hold the store, can end
    end_process_groups()


@contextmanager
def _interruptions_left_to_process_0(failures: "_Failures") -> Iterator[None]:
    """Process 0 ends its iteration, may write a checkpoint and has the last word: till then the others must go on."""
    if comm.is_main_process() or threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: failures.expect_end()) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def _create_local_groups(nodes: list[str]) -> None:
    """As detectron2's `create_local_process_group`, for machines with different numbers of processes too."""
    for node in dict.fromkeys(nodes):
        group = distributed.new_group([rank for rank, its_node in enumerate(nodes) if its_node == node])
        if node == nodes[distributed.get_rank()]:
            comm._LOCAL_PROCESS_GROUP = group


def _choose_gpu(job: Rendezvous) -> None:
    """Each process of a machine has a GPU of its own; a launcher may show it that one only."""
    count, local_rank = torch.cuda.device_count(), comm.get_local_rank()
    if count > 1 and local_rank >= count:
        raise ValueError(
            f"There are {count} GPUs for {comm.get_local_size()} processes on this machine: start {count}."
        )
    torch.cuda.set_device(local_rank if count > 1 else 0)
    gpu = str(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", local_rank))
    shared = [place for place, times in Counter(comm.all_gather((job.node, gpu))).items() if times > 1]
    if shared:
        raise ValueError(f"Several processes of this job have the same GPU ({shared[0][1]}): start one a GPU.")


class _Failures(threading.Thread):
    """What ended the job, known to all its processes; ends this one where it does not notice by itself."""

    def __init__(self, job: Rendezvous, store: Store) -> None:
        super().__init__(name="failures", daemon=True)
        self._job, self._store = job, store
        self._speaks = comm.get_local_rank() == 0
        self._stopped, self._ending = threading.Event(), threading.Event()

    def run(self) -> None:
        """Look for a failure of another process; give the main thread some time to see it, then end the process."""
        failure = None
        while failure is None and not self._ending.is_set():
            if self._stopped.wait(POLL_S):
                return
            failure = self._look()
        if not self._stopped.wait(GRACE_S):
            if failure is not None:
                self._say(failure)
            os._exit(1)

    def expect_end(self) -> None:
        """The job was interrupted: end the process if nothing else does."""
        self._ending.set()

    def _look(self) -> str | None:
        try:
            return self._store.get(_FAILURE).decode() if self._store.check([_FAILURE]) else None
        except RuntimeError:
            return json.dumps({"node": None, "text": "the process through which all others talk is gone"})

    def stop(self) -> None:
        """Look no longer."""
        self._stopped.set()
        self.join()

    def end_with(self, error: BaseException) -> None:
        """To be called when this process fails or is interrupted; where another one says why, raises ``SystemExit``.

        Raises:
            ConnectionError: another process ended without a word.
        """
        ours = self._describe(error)
        first = self._record(ours)
        interrupted = isinstance(error, KeyboardInterrupt) and json.loads(first)["interrupted"]
        _forget_groups()
        self.stop()
        if self._job.rank > 0 if interrupted else first != ours:
            self._say(first)
            # Who has started the processes ends all by a signal when the first one ends: not before the other has
            # spoken.
            with suppress(KeyboardInterrupt):
                time.sleep(2)
            raise SystemExit(128 + getattr(error, "signal_number", signal.SIGINT) if interrupted else 1) from error
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST):
            raise ConnectionError(
                f"Process {self._job.rank} of {self._job.world_size} lost the connection to another process, which "
                f"was ended from outside {WHY_KILLED}."
            ) from error

    def _record(self, ours: str) -> str:
        """The first failure of the job, which may be ours."""
        try:
            return self._store.compare_set(_FAILURE, "", ours).decode()
        except RuntimeError:  # the process that held the store has ended
            return ours

    def _describe(self, error: BaseException) -> str:
        interrupted = isinstance(error, KeyboardInterrupt)
        what = "".join([type(error).__name__, *(f": {line}" for line in str(error).splitlines()[:1])])
        ended = "was interrupted" if interrupted else f"failed with {what}"
        text = f"process {self._job.rank} on {socket.gethostname()} {ended}"
        return json.dumps({"node": self._job.node, "text": text, "interrupted": interrupted})

    def _say(self, failure: str) -> None:
        """Once a machine, and not on the one where the failure itself is seen."""
        found = json.loads(failure)
        if self._speaks and found["node"] != self._job.node:
            sys.stderr.write(f"Process {self._job.rank} of {self._job.world_size} ends: {found['text']}\n")


def end_process_groups() -> None:
    """End the communication of a process whose work is done; to be called by all processes of the job.

    The threads of a process group that lives on into the end of the interpreter may still want to run Python code, and
    the process is then aborted, its work done, with an exit code that fails the whole job. detectron2 keeps its groups
    for good, so they are taken from it first.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return
    comm.synchronize()
    _forget_groups()


def _forget_groups() -> None:
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    comm.create_local_process_group.cache_clear()
    gc.collect()  # data-parallel models hold groups too, and trainers hold one another
    distributed.destroy_process_group()
