"""What a conversion was made of, written beside its result: the same again is not done twice."""

import argparse
import json
import os
from typing import Any

from .files import CONVERSION_RECORD
from .regions import Source

__all__ = ["make_record", "read_record", "remove_record"]


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
    """The record of a folder; None where there is none, or where what it names is not all there."""
    path = os.path.join(output, CONVERSION_RECORD)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as f:
        record: dict[str, Any] = json.load(f)
    return record if all(os.path.isfile(os.path.join(output, name)) for name in record["parts"].values()) else None


def remove_record(output: str) -> None:
    """From here on the output is not up to date, until it is whole again."""
    path = os.path.join(output, CONVERSION_RECORD)
    if os.path.exists(path):
        os.remove(path)
