"""Predictions on disk in COCO's panoptic format: ``predictions.json`` beside ``predictions/*.png``."""

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..panoptic_png import write_panoptic_png
from ..whole_files import inside, whole_file

__all__ = ["PredictionWriter", "write_json"]


def write_json(path: str, content: Any) -> None:
    """Write a JSON file as a whole: no reader ever sees half of it."""
    with whole_file(path) as f:
        json.dump(content, f, indent=2, allow_nan=False)


class PredictionWriter:
    """Writes each image at once: the PNG, then a line of JSON in a file of this process.

    So nothing is held in memory, and what is on disk stays whatever happens later. :meth:`merge` makes
    ``predictions.json`` of the lines of all processes; they must share the folder.
    """

    def __init__(self, output_dir: str, rank: int) -> None:
        """``output_dir``: a local folder, made if need be."""
        self._output_dir = output_dir
        self._png_dir = os.path.join(output_dir, "predictions")
        self._lines_path = os.path.join(output_dir, f"predictions.rank{rank}.jsonl")
        self._lines: IO[str] | None = None
        self._merged = False
        os.makedirs(self._png_dir, exist_ok=True)

    def write(
        self,
        image_id: Hashable,
        file_name: str,
        ids: npt.NDArray[np.integer],
        segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write one image: its segment ids (H, W) as ``file_name``, and its segments with dataset ids.

        Raises:
            ValueError: ids outside [0, 256³), or a name that leads out of the folder.
        """
        path = inside(self._png_dir, file_name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_panoptic_png(path, ids)
        line = {"image_id": image_id, "file_name": file_name, "segments_info": list(segments)}
        self._append(json.dumps(line) + "\n")

    def _append(self, text: str) -> None:
        if self._lines is None:
            self._lines = open(self._lines_path, "w", encoding="utf-8")  # noqa: SIM115 (open from image to image)
        self._lines.write(text)
        self._lines.flush()

    def state(self) -> str:
        """The lines of the images so far."""
        return "" if self._lines is None else Path(self._lines_path).read_text(encoding="utf-8")

    def add_state(self, lines: str) -> None:
        """Take over the images that another writer to this folder has written."""
        if lines:
            self._append(lines)

    def close(self) -> str | None:
        """End this process's part; the file with its lines, None when there is no image."""
        if self._lines is None:
            return None
        self._lines.close()
        self._lines = None
        return self._lines_path

    def merge(self, parts: Sequence[str], categories: Sequence[Mapping[str, Any]]) -> None:
        """Make ``predictions.json`` of the files with lines, line by line, then remove these.

        Nothing new since the last time leaves it as it is.
        """
        if self._merged and not parts:
            return
        self._merged = True
        path = os.path.join(self._output_dir, "predictions.json")
        with whole_file(path) as out:
            out.write(f'{{"categories": {json.dumps(list(categories))},\n"annotations": [\n')
            for index, part in enumerate(parts):
                out.write(",\n" if index else "")
                _copy_lines(part, out)
            out.write("\n]}\n")
        for part in parts:
            os.remove(part)


def _copy_lines(part: str, out: IO[str]) -> None:
    with open(part, encoding="utf-8") as lines:
        out.write(next(lines).rstrip("\n"))
        for line in lines:
            out.write(",\n" + line.rstrip("\n"))
