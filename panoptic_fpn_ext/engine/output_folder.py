"""One run at a time in an output folder, and none of one that was refused before it began."""

import atexit
import contextlib
import fcntl
import logging
import os
import shlex
import socket
import sys
import textwrap
import time
from typing import TextIO

from detectron2.utils import comm

__all__ = ["hold_output_folder", "is_at_work", "make_folder"]

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_held: dict[str, TextIO] = {}
_made: list[str] = []
"""Folders that this process made, those that are in others after these."""


def hold_output_folder(folder: str) -> None:
    """Keep other runs out of an output folder as long as this process lives; to be called by all processes of a job,
    before the first of them writes there.

    Process 0 locks ``folder/.lock``, which names it; however the process ends, the lock ends with it. The lock is a
    POSIX one: it holds between machines where their file system hands it on, as NFS does with its lock manager.
    Folders that are not of a file system (``s3://…``) are not locked. A folder that has nothing but the lock when the
    process ends, as where the run was refused, is left as it was found.

    Raises:
        ValueError: another run, a training or an evaluation, is at work in the folder.
    """
    if comm.is_main_process() and "://" not in folder:
        _lock(folder)
    comm.synchronize()


def is_at_work(folder: str) -> bool:
    """Whether another run holds a folder."""
    path = os.path.join(os.path.realpath(folder), _LOCK)
    if path in _held or not os.path.isfile(path):
        return False
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
    return False


def make_folder(folder: str) -> None:
    """Make a folder that goes when the process ends, with those around it that were made for it, unless one of them
    has got something."""
    path, missing = os.path.realpath(folder), []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    _made.extend(reversed(missing))
    atexit.unregister(_tidy_up)
    atexit.register(_tidy_up, os.getpid())


def _tidy_up(process: int) -> None:
    """Remove locks that nothing came to lie beside, and folders that stayed empty; not in forked processes."""
    if os.getpid() != process:
        return
    for path in _held:
        with contextlib.suppress(OSError):
            if os.listdir(os.path.dirname(path)) == [_LOCK]:
                os.remove(path)
    for folder in reversed(_made):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(folder)


def _lock(folder: str) -> None:
    path = os.path.join(os.path.realpath(folder), _LOCK)
    if path in _held:  # opened and closed once more, the lock would be gone
        return
    make_folder(folder)
    # Open as long as the process lives; arguments of a C locale may hold halves of characters.
    file = open(path, "a+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = textwrap.shorten(file.read(), 120, placeholder=" …") or "an unknown process"
        raise ValueError(
            f"A run is at work in {folder}, {holder}: wait for it, or take another folder. "
            "If both were meant as one job, start them by --num-gpus, torchrun or srun."
        ) from error
    except OSError as error:
        logger.warning(f"{folder} cannot be locked ({error.strerror}): no second run there would be noticed.")
    file.seek(0)
    file.truncate()
    file.write(
        f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}: {shlex.join(sys.argv)}"
    )
    file.flush()
    _held[path] = file
