"""How the commands of this package end: a user's mistake is one line, an interruption says how to go on."""

import argparse
import json
import math
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from . import console

__all__ = [
    "MISTAKE",
    "Interrupted",
    "child_output",
    "command_line",
    "command_parser",
    "describe_error",
    "real",
    "report",
    "run_command",
    "typed_option",
    "whole",
]

MISTAKE = 2
"""Exit status of a mistake in the command, the config or the data, as of argparse; others have 1."""

_MISTAKES = (OSError, ValueError, KeyError, ImportError, AssertionError)
# Whose ValueErrors, KeyErrors and AssertionErrors are about configs and data. Another's is a fault of the program.
_SPEAKERS = {
    "panoptic_fpn_ext",
    "__main__",
    "__mp_main__",
    "detectron2",
    "fvcore",
    "iopath",
    "yacs",
    "omegaconf",
    "hydra",
}
_SAID_LAST = 6  # lines of a process that failed
_TYPED = "PANOPTIC_FPN_EXT_COMMAND"
_LIMITS = ("FloatingPointError", "MemoryError", "OutOfMemoryError")


class Interrupted(KeyboardInterrupt):
    """The command was asked to end by a signal; with a text, this was said."""

    def __init__(self, signal_number: int, text: str = "") -> None:
        super().__init__(text)
        self.signal_number = signal_number


def num_cores() -> int:
    """Cores that this process may use: fewer than the machine has under `taskset`, in a container or a job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_parser(description: str | None, example: str, **kwargs: Any) -> argparse.ArgumentParser:
    """Parser of a command whose help ends with an example.

    Args:
        description: what the command does, as its module's docstring says it.
        example: command lines.
        kwargs: of `argparse.ArgumentParser`.
    """
    return argparse.ArgumentParser(
        description=(description or "").replace("``", ""),
        epilog=f"example:\n{textwrap.indent(example, '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )


def real(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """Type of an argument: a finite number of a range, its ends included."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            wanted = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number of at least {low:g}"
            raise argparse.ArgumentTypeError(f"{wanted if math.isfinite(low) else 'a finite number'}, not {text}")
        return value

    parse.__name__ = "number"  # argparse names it where the text is none
    return parse


def whole(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Type of an argument: an integer of a range, its ends included."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            wanted = f"an integer from {low} to {high}" if math.isfinite(high) else f"an integer of at least {low}"
            raise argparse.ArgumentTypeError(f"{wanted}, not {text}")
        return value

    parse.__name__ = "int"
    return parse


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and end the process with its exit status.

    Args:
        main: the command. Its ``OSError``, ``ValueError``, ``KeyError`` and ``ImportError`` are users' mistakes: one
            line and exit status 2. Anything else is shown with its traceback and has 1; SIGINT has 130, SIGTERM 143.
    """
    console.start_console()
    os.environ[_TYPED] = json.dumps([sys.orig_argv, sys.argv[1:]])  # for processes that this one starts
    signal.signal(signal.SIGTERM, _terminate)
    threading.excepthook = _end_thread
    try:
        status = main() or 0
        sys.stdout.flush()
    except Exception as error:
        status = report(error)
    except KeyboardInterrupt as error:
        status = 128 + getattr(error, "signal_number", signal.SIGINT)
        if not str(error):  # else it was said
            print("Interrupted.", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _terminate(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _end_thread(ended: threading.ExceptHookArgs) -> None:
    """Of TensorBoard's thread, which cannot write: its traceback is for the log, the main thread gets the error too."""
    if isinstance(ended.exc_value, OSError):
        console.log_traceback(ended.exc_value)
    else:
        threading.__excepthook__(ended)


def report(error: Exception) -> int:
    """Say what went wrong on standard error, with the traceback in ``log.txt``; returns the exit status."""
    if isinstance(error, BrokenPipeError):  # as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    text, status = describe_error(error)
    print(f"{console.paint('error', sys.stderr)}: {text}", file=sys.stderr)  # noqa: T201
    return status


def describe_error(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit status; its traceback goes to ``log.txt`` if there is one."""
    text, status = _own_words(error)
    if not text:
        text = f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}".rstrip()
    console.log_traceback(error)
    path = console.log_file()
    if path is None:
        return text, status
    return f"{text} (The traceback is in {path}.)" if status == MISTAKE or _is_limit(error) else text, status


def _own_words(error: Exception) -> tuple[str, int]:
    """The text of a mistake or of a limit that was met; "" of a fault of the program."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        if isinstance(error, FileExistsError):  # of a folder that is to be made
            return f"{name} is a file, where a folder is needed. Name another path.", MISTAKE
        return f"{name}: {error.strerror}", MISTAKE
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, _MISTAKES) and said.startswith("Caught ") and "Original Traceback" in said:
        # A worker process of a data loader met it.
        said = re.split(rf"\n(?:\w+\.)*{type(error).__name__}: ", said.rstrip())[-1].strip("'\"")
        return said, MISTAKE
    if _is_limit(error):
        return said or type(error).__name__, 1
    is_sentence = " " in said.strip()
    speaks = isinstance(error, (OSError, ImportError)) or _origin(error) in _SPEAKERS
    return (said, MISTAKE) if isinstance(error, _MISTAKES) and is_sentence and speaks else ("", 1)


def _is_limit(error: Exception) -> bool:
    return type(error).__name__ in _LIMITS


def _origin(error: Exception) -> str:
    """The package whose code raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] if frames else ""


def child_output(command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Standard output of a process.

    Args:
        command: the program and its arguments.
        environment: of the process; this one's by default.
        cwd: its folder; this one's by default.

    Raises:
        ChildProcessError: it failed; what it said last on standard error is part of the text.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=cwd)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-_SAID_LAST:])
        raise ChildProcessError(
            f"A process failed (exit status {done.returncode}): {shlex.join(command)}" + (f"\n{said}" if said else "")
        )
    return done.stdout


def typed_option(key: str, value: str) -> str:
    """A config option as a shell takes it: ``KEY VALUE``, of a LazyConfig ``key=value``."""
    return shlex.quote(f"{key}={value}") if key.islower() else f"{key} {shlex.quote(value)}"


def command_line(*options: str) -> str:
    """The command that was typed, with further options before its own arguments."""
    if multiprocessing.parent_process() is None:
        words, arguments = sys.orig_argv, sys.argv[1:]
    else:  # one of several processes
        words, arguments = json.loads(os.environ.get(_TYPED, "[[], []]"))
    if not words or "TORCHELASTIC_RUN_ID" in os.environ:
        return f"the same command with {' '.join(options)}"
    head = words[: len(words) - len(arguments)]
    return shlex.join([*head, *(option for option in options if option not in arguments), *arguments])
