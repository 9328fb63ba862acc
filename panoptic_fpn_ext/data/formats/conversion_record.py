"""What a conversion was made of, written beside its result: the same again is not done twice."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...coco_json import load_json
from .conversion import write_json
from .files import CONVERSION_RECORD
from .regions import Source, SourceImage
from .splits import file_stem

__all__ = ["is_done", "keep_foreign_files", "make_record", "read_record", "write_record"]


def make_record(description: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What the result depends on: the description, the annotation files and the images, by size and time."""
    of_images = (path for image in source.images for path in (image.path, *image.files))
    files = sorted({*source.files, *of_images})
    stamps = [[path, *_stamp(path)] for path in files]
    ignored = {"output", "processes", "max_image_pixels"}
    options = {key: value for key, value in vars(description).items() if key not in ignored}
    return {"description": json.loads(json.dumps(options)), "files": stamps, "parts": None}


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def read_record(output: str) -> dict[str, Any] | None:
    """The record of a folder, of a conversion that ended or not; None where there is none.

    Raises:
        ValueError: the file is no such record.
    """
    path = os.path.join(output, CONVERSION_RECORD)
    if not os.path.isfile(path):
        return None
    try:
        record = load_json(path, "Record of a conversion")
        return {key: record[key] for key in ("description", "files", "parts")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or no record of a conversion. Name another folder by --output, or remove this one."
        ) from error


def write_record(output: str, record: Mapping[str, Any]) -> None:
    """Put a record into a folder: without ``parts`` when a conversion begins, with them when it has ended."""
    write_json(os.path.join(output, CONVERSION_RECORD), record)


def is_done(record: Mapping[str, Any], before: Mapping[str, Any], output: str) -> bool:
    """Whether a folder's record says that this conversion has ended there, and its files are all there."""
    if before["parts"] is None or {**before, "parts": None} != {**record, "parts": None}:
        return False
    return all(os.path.isfile(os.path.join(output, name)) for name in before["parts"].values())


def keep_foreign_files(parts: Mapping[str, Sequence[SourceImage]], output: str) -> None:
    """Write nothing over in a folder that no conversion has begun.

    Args:
        parts: the images by part.
        output: the folder.

    Raises:
        ValueError: it has a file that the conversion would write.
    """
    names = [f"{file_stem(part)}{ending}" for part in parts for ending in ("", ".json")]
    own = [name for name in names if os.path.lexists(os.path.join(output, name))]
    targets = ((image, os.path.join(output, "images", image.name)) for images in parts.values() for image in images)
    own += [f"images/{image.name}" for image, path in targets if os.path.lexists(path) and not _is_same(image, path)]
    if own:
        raise ValueError(
            f"{output} has {len(own)} files and folders that this conversion would write over and that none has "
            f"written, such as {own[0]}. Name another folder by --output."
        )


def _is_same(image: SourceImage, path: str) -> bool:
    if image.content is not None or not (os.path.exists(path) and os.path.exists(image.path)):
        return False
    return os.path.samefile(image.path, path)
