"""One thread that works through a short queue while the caller goes on."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["BackgroundWorker"]

Job = TypeVar("Job")
logger = logging.getLogger(__name__)


class BackgroundWorker(Generic[Job]):
    """Calls ``work(job)`` for each job, in order, in one thread that lives from the first job to :meth:`finish`.

    An exception of ``work`` goes to ``on_error(job, exception)``, in that thread too, and the next job's turn comes.
    """

    def __init__(
        self, work: Callable[[Job], None], on_error: Callable[[Job, Exception], None], max_waiting: int
    ) -> None:
        """``max_waiting``: how many jobs may wait; :meth:`submit` blocks while there are so many."""
        self._work = work
        self._on_error = on_error
        self._jobs: queue.Queue[Job | None] = queue.Queue(max_waiting)
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Put a job into the queue; waits while the queue is full."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="panoptic-quality", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def finish(self) -> None:
        """Wait until all jobs are done and end the thread; more jobs may follow."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._work(job)
            except Exception as error:  # whatever it is, the queue must go on being emptied
                self._on_error(job, error)
