"""Files that are there as a whole or not at all, never outside the folder they belong to, and their hashes."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["content_id", "file_hash", "inside", "keep_inputs", "whole_file"]


@contextlib.contextmanager
def whole_file(path: "str | os.PathLike[str]", mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which takes the place of ``path`` once all of it is on the disk.

    Whatever ends the block early, a full disk or a signal, leaves what was at ``path`` as it was and nothing else; a
    power cut leaves the old file or the new one.

    Args:
        path: in a local folder that exists.
        mode: ``"w"`` for text, UTF-8, or ``"wb"``.

    Raises:
        OSError: it cannot be written.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file is to be written", os.fspath(path))
    part = f"{os.fspath(path)}.part"
    try:
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise
    _sync_folder(os.path.dirname(os.path.abspath(path)))


def _sync_folder(folder: str) -> None:
    """Put the name itself on the disk, where the system can (Windows cannot, some network file systems refuse)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_hash(path: "str | os.PathLike[str]", algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file, read piece by piece."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def content_id(path: str) -> str:
    """What stands for a file's content: its hash or, of what lies elsewhere and is named by a URL, that name."""
    return file_hash(path) if os.path.isfile(path) else path


def keep_inputs(outputs: Iterable[str], inputs: Iterable[str | None]) -> None:
    """Refuse to write over what a command reads, before it is read.

    Args:
        outputs: files and folders that will be written.
        inputs: files and folders that are read; None for one that is not given.

    Raises:
        ValueError: one of them is both, by whatever path.
    """
    read = {os.path.realpath(path) for path in inputs if path is not None}
    for path in outputs:
        if os.path.realpath(path) in read:
            raise ValueError(f"{path} would be written over, and is one of the inputs: name another output.")


def inside(folder: str, name: str) -> str:
    """Path of a file in a folder, by a name that comes from somebody else's file.

    Raises:
        ValueError: the name is absolute, or leads out of the folder by ``..``.
    """
    path = os.path.normpath(os.path.join(folder, name))
    if os.path.isabs(name) or not Path(path).is_relative_to(os.path.normpath(folder)) or "\0" in name:
        raise ValueError(
            f"File name {name!r} leads out of the folder {folder}: names are relative to it, without '..'."
        )
    return path
