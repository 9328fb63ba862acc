"""The checkpoints of a run's folder: which of them is sound, and which is the one to go on from."""

import logging
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ...command import typed_option
from .weight_files import read_weight_file

__all__ = ["has_checkpoints", "how_to_take_last", "newest_sound", "numbered_checkpoints", "what_is_wrong"]

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"model_\d{7,}\.pth")
_NOTE = "last_checkpoint"


def numbered_checkpoints(folder: str) -> list[str]:
    """Names of the checkpoints that have an iteration for a name, the newest first."""
    names = [path.name for path in Path(folder).glob("*.pth") if _NUMBERED.fullmatch(path.name)]
    return sorted(names, key=lambda name: int(name[6:-4]), reverse=True)


def has_checkpoints(folder: str) -> bool:
    """Whether there is a training to go on with, or what is left of one."""
    return os.path.isfile(os.path.join(folder, _NOTE)) or bool(numbered_checkpoints(folder))


def newest_sound(folder: str, needed: Collection[str] = ("model",)) -> str:
    """The checkpoint that ``last_checkpoint`` names or, with one warning, the newest sound one if that one is not.

    Args:
        folder: of a run.
        needed: what a checkpoint must hold; one of another program lacks it.

    Returns:
        Its path, "" where the folder has no checkpoint at all.

    Raises:
        ValueError: there are checkpoints, and none is sound.
    """
    refused: list[str] = []
    for name, problem in _candidates(folder):
        path = os.path.join(folder, name)
        problem = problem or what_is_wrong(path, needed)
        if not problem:
            if refused:
                _warn_once(f"Not sound in {folder}: {'; '.join(refused)}. The newest sound one is taken: {name}.")
            return path
        refused.append(f"{name or '(no name)'}: {problem}")
    if refused:
        raise ValueError(
            f"{folder} has no sound checkpoint to go on with: {'; '.join(refused)}. Put one there, or begin again in "
            "another folder."
        )
    return ""


def how_to_take_last(folder: str, key: str = "MODEL.WEIGHTS") -> str:
    """How an evaluation gets the last checkpoint of a folder, for messages; "" where there is none that is sound."""
    try:
        last = newest_sound(folder)
    except ValueError:
        return ""
    return f"{last} is the last checkpoint of {folder}: take it by {typed_option(key, last)}." if last else ""


@lru_cache(maxsize=16)
def _warn_once(text: str) -> None:
    logger.warning(text)


def _candidates(folder: str) -> Iterator[tuple[str, str]]:
    """Names, the best first, each with what is wrong with the name itself."""
    note, last = Path(folder, _NOTE), ""
    if note.exists():
        last = note.read_text(encoding="utf-8", errors="replace").strip() if note.is_file() else ""
        yield last, "" if last and os.path.basename(last) == last else f"{_NOTE} names no file of this folder"
    # By what they say themselves: clocks are set back, and copies have new dates.
    others = [path.name for path in Path(folder).glob("model_*.pth") if path.name != last]
    yield from ((name, "") for name in sorted(others, key=lambda name: _reached(folder, name), reverse=True))


def _reached(folder: str, name: str) -> tuple[int, bool]:
    """The iteration of a checkpoint, -1 of one that cannot be read, and whether its name says so."""
    if _NUMBERED.fullmatch(name):
        return int(name[6:-4]), True
    return _content(os.path.join(folder, name)).iteration, False


def what_is_wrong(path: str, needed: Collection[str] = ("model",)) -> str:
    """Why a file is no sound checkpoint, "" if it is one; all of it is read."""
    found = _content(path)
    missing = [key for key in needed if key not in found.keys]
    lacking = f"it is no checkpoint of such a run: it lacks {', '.join(missing)}" if missing else ""
    return found.problem or lacking


class _Content(NamedTuple):
    problem: str
    keys: frozenset[str] = frozenset()
    iteration: int = -1


def _content(path: str) -> _Content:
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:
        return _Content(f"there is no such file ({type(error).__name__})")
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read(path: str, modified: int, size: int) -> _Content:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (record := archive.testzip()) is not None:
                    return _Content(f"its record {record} is damaged")
        content = read_weight_file(path)
    except Exception as error:  # each reader has its own types
        reason = str(error).splitlines()[0] if str(error) else ""
        return _Content(f"it cannot be read ({type(error).__name__}: {reason})")
    if not isinstance(content, Mapping):
        return _Content("")
    iteration = content.get("iteration")
    return _Content("", frozenset(map(str, content)), iteration if isinstance(iteration, int) else -1)
