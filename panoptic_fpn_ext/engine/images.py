"""Which images a command line means."""

import glob
import logging
import os
from collections.abc import Iterable, Iterator

from ..data.convert import CONVERSION_RECORD

__all__ = ["IMAGE_SUFFIXES", "find_images"]

IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Of files that are taken for images; one that cannot be read, as HEIC, is named instead of left out silently."""

logger = logging.getLogger(__name__)


def find_images(inputs: Iterable[str], output_dir: str | None = None) -> list[str]:
    """Images of files, folders and patterns, each once.

    Args:
        inputs: a file is taken as it is; a folder is searched, subfolders included, for :data:`IMAGE_SUFFIXES`, but
            hidden files and the panoptic PNGs of a converted dataset are left out; anything else is a pattern as the
            shell knows it, with ``**`` for any number of folders.
        output_dir: images in this folder are results, not inputs, and are left out.

    Returns:
        Paths in the order of ``inputs``, sorted within each folder or pattern.

    Raises:
        FileNotFoundError: one of the inputs names no image.
    """
    found: dict[str, str] = {}  # real path → path as given
    for name in inputs:
        paths = sorted(_images_of(os.path.expanduser(name)))
        if not paths:
            kinds = " ".join(IMAGE_SUFFIXES)
            raise FileNotFoundError(
                f"No image at {name}: there is no such file, nor a folder or pattern with any of {kinds}."
            )
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    inside = [real for real in found if output_dir is not None and _is_inside(real, output_dir)]
    if len(inside) == len(found):
        raise FileNotFoundError(f"All images lie in the output folder {output_dir}; choose another one.")
    if inside:
        logger.warning(f"{len(inside)} images lie in the output folder {output_dir} and are left out.")
    return [path for real, path in found.items() if real not in inside]


def _images_of(name: str) -> Iterator[str]:
    if os.path.isfile(name):
        yield name
    elif os.path.isdir(name):
        for folder, subfolders, files in os.walk(name):
            if CONVERSION_RECORD in files:
                subfolders[:] = [subfolder for subfolder in subfolders if subfolder == "images"]
            yield from (os.path.join(folder, file) for file in files if _is_image(file) and not file.startswith("."))
    else:
        for match in glob.glob(name, recursive=True):
            if os.path.isdir(match):
                yield from _images_of(match)
            elif _is_image(match):
                yield match


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def _is_inside(real_path: str, folder: str) -> bool:
    return real_path.startswith(os.path.join(os.path.realpath(folder), ""))
