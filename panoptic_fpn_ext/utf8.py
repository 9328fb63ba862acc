"""Text files in UTF-8, whatever the system's locale is, also where detectron2 opens them."""

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import detectron2.config.config
import detectron2.config.lazy
from detectron2.utils.file_io import PathManager

__all__ = ["as_text", "utf8_configs"]


class _Utf8PathManager:
    """detectron2's `PathManager`, with text in UTF-8, with or without a byte-order mark."""

    def __getattr__(self, name: str) -> Any:
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        """As `PathManager.open`."""
        if "b" not in mode:
            kwargs.setdefault("encoding", "utf-8-sig" if "r" in mode else "utf-8")
            path = PathManager.get_local_path(path)  # handlers of remote files know no encodings
        return PathManager.open(path, mode, *args, **kwargs)


@contextlib.contextmanager
def utf8_configs() -> Iterator[None]:
    """In this block, configs of all kinds and those they are based on are read and written in UTF-8.

    detectron2 and fvcore open them with the locale's encoding and leave no other way to say so.
    """
    modules: tuple[Any, ...] = (detectron2.config.config, detectron2.config.lazy)
    before = [module.PathManager for module in modules]
    for module in modules:
        module.PathManager = _Utf8PathManager()
    try:
        yield
    finally:
        for module, path_manager in zip(modules, before, strict=True):
            module.PathManager = path_manager


def as_text(word: str) -> str:
    """A word of the command line that is no path, such as a dataset's name, as files in UTF-8 have it.

    Where the locale has no such character, Python keeps its bytes as halves of characters.
    """
    try:
        return word.encode("ascii", "surrogateescape").decode("utf-8")
    except UnicodeError:  # it is text already, or no UTF-8
        return word
