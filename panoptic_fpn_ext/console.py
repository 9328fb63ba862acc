"""What a person reads on the console, and what goes into ``log.txt``.

The console gets this package's records of level INFO and the warnings and errors of all. ``log.txt`` gets everything:
what detectron2 and this package say at any level, and what Python warns of. So in this package INFO is for what one
reads during a run, and DEBUG for what one may want to look up later.
"""

import contextlib
import io
import logging
import logging.handlers
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

__all__ = ["captured_prints", "log_file", "log_traceback", "open_log", "paint", "quiet_dependencies", "start_console"]

ROOT = "panoptic_fpn_ext"
LOGGERS = (ROOT, "detectron2", "fvcore", "py.warnings")
# What dependencies say to one another and no user can mend: for log.txt only.
_NOISY_LOGGERS = ("torch.utils.cpp_extension", "torch.fx._symbolic_trace")
_NOISY_PACKAGES = {"torch", "torchvision", "detectron2", "fvcore", "iopath", "pycocotools", "pkg_resources"}
_NOISY_MESSAGES = ("torch.meshgrid", "pkg_resources is deprecated")
_COLORS = {"warning": "33", "error": "31"}

_log: "_Log | None" = None


class _Console(logging.Handler):
    """INFO goes to standard output and the rest to standard error, between tqdm's bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, without its traceback."""
        if record.levelno < logging.WARNING:
            text, stream = record.getMessage(), sys.stdout
        else:
            word = "warning" if record.levelno == logging.WARNING else "error"
            text, stream = f"{paint(word, sys.stderr)}: {record.getMessage()}", sys.stderr
        with contextlib.suppress(OSError):  # whoever read it has gone, the work goes on
            tqdm.write(text, file=stream)
            stream.flush()


class _LogFile(logging.StreamHandler):
    """Says once that nothing can be written any more, as on a full disk, instead of a traceback a record."""

    def __init__(self, path: str, stream: IO[str]) -> None:
        super().__init__(stream)
        self._path = path
        self.has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """As the base class, but for errors of the file."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.has_failed:
            self.has_failed = True
            reason = f"{self._path} cannot be written ({error.strerror}): what follows is missing there."
            print(f"{paint('warning', sys.stderr)}: {reason}", file=sys.stderr)  # noqa: T201 - not to the log


class _Log(logging.handlers.MemoryHandler):
    """``log.txt``: keeps the records until it is known where that is."""

    def __init__(self) -> None:
        super().__init__(capacity=1, flushLevel=logging.NOTSET)
        self._path: str | None = None
        self.last_error = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write or keep one record."""
        if record.exc_info:
            self.last_error = id(record.exc_info[1])  # the error itself would keep what its frames hold
        super().emit(record)

    @property
    def path(self) -> str | None:
        """The file, None where there is none yet or any more, or where it cannot be written."""
        is_lost = isinstance(self.target, _LogFile) and self.target.has_failed
        return None if self._path is None or is_lost or not os.path.exists(self._path) else self._path

    def write_to(self, path: str, stream: IO[str]) -> None:
        """Write what was kept, and what comes, to a file."""
        file = _LogFile(path, stream)
        file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S"))
        self.flush()
        self._path = path
        self.setTarget(file)
        self.flush()


def start_console(*, verbose: bool = False, is_main_process: bool = True) -> None:
    """Send the records of this package, of detectron2 and of Python's warnings where they belong.

    What was kept for a ``log.txt`` that is not open yet stays when this is called again.

    Args:
        verbose: show on the console all that ``log.txt`` gets.
        is_main_process: the others write to their ``log.txt`` only.
    """
    global _log
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show, it shows as \u6f22
            stream.reconfigure(errors="backslashreplace")
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        # Whoever embeds this package sees its own records too.
        logger.propagate = name == ROOT
        logger.handlers = [handler for handler in logger.handlers if not _is_replaced(handler)]
    _log = _log or _Log()
    console = _Console()
    console.addFilter(lambda record: verbose or _is_for_people(record))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(_log)
        if is_main_process:
            logging.getLogger(name).addHandler(console)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).filters[:] = [_log_only]
    warnings.showwarning = _show_warning


def quiet_dependencies() -> None:
    """Where :func:`start_console` was not called, as in a program of the user's own, leave out what dependencies say to
    one another when a model runs. Everything else that they say stays as it is.
    """
    if _log is not None:
        return
    for message in _NOISY_MESSAGES:
        warnings.filterwarnings("ignore", message)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def open_log(folder: str, rank: int = 0) -> str:
    """Begin to write ``log.txt`` in a folder, or go on with it; returns its path.

    Further processes write to ``log.txt.rank1`` and so on. Without :func:`start_console`, does that first.
    """
    from detectron2.utils.file_io import PathManager  # not for commands that write no log

    if _log is None:
        start_console(is_main_process=rank == 0)
    assert _log is not None
    path = os.path.join(folder, "log.txt" if rank == 0 else f"log.txt.rank{rank}")
    PathManager.mkdirs(folder)
    _log.write_to(path, PathManager.open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1))
    return path


def log_file() -> str | None:
    """Path of this process's ``log.txt``, None before :func:`open_log` and where it is lost."""
    return _log.path if _log is not None else None


def log_traceback(error: BaseException) -> None:
    """Write the traceback of an error to ``log.txt``, unless that is what was written last."""
    if _log is not None and _log.last_error != id(error):
        logging.getLogger(ROOT).debug("The run ended with an error:", exc_info=error)


@contextlib.contextmanager
def captured_prints(logger: logging.Logger) -> Iterator[None]:
    """What is printed in this block becomes one record of level DEBUG."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        if printed.getvalue().strip():
            logger.debug("\n" + printed.getvalue().rstrip())


def paint(word: str, stream: Any) -> str:
    """``warning`` and ``error`` in colour on a terminal, unless ``NO_COLOR`` is set; plain everywhere else."""
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return word
    return f"\033[{_COLORS[word]}m{word}\033[0m"


def _is_replaced(handler: logging.Handler) -> bool:
    """Whether it is of an earlier call, or of detectron2's `setup_logger`."""
    of_console = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
    return isinstance(handler, (_Console, _Log)) or (type(handler) is logging.StreamHandler and of_console)


def _is_for_people(record: logging.LogRecord) -> bool:
    if record.name == "detectron2.engine.train_loop" and record.exc_info:
        return False  # it raises the error, too
    if record.name.startswith("fvcore.common.checkpoint") and record.levelno < logging.ERROR:
        return False  # every parameter that a pre-trained backbone does not have; what does not fit is an error of ours
    least = logging.INFO if record.name.split(".")[0] == ROOT else logging.WARNING
    return record.levelno >= least


def _log_only(record: logging.LogRecord) -> bool:
    if _log is not None:
        _log.handle(record)
    return False


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """In place of `warnings.showwarning`: what dependencies say of one another goes to the log only."""
    inside = set(Path(filename).parts) & _NOISY_PACKAGES
    of_the_future = issubclass(category, (FutureWarning, DeprecationWarning, PendingDeprecationWarning))
    noise = inside and (of_the_future or str(message).startswith(_NOISY_MESSAGES))
    level = logging.DEBUG if noise else logging.WARNING
    logging.getLogger("py.warnings").log(level, f"{filename}:{lineno}: {category.__name__}: {message}")
