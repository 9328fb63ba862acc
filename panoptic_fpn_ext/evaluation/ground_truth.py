"""The ground truth of a panoptic data set, in COCO's format, read picture by picture."""

import json
import os
from collections.abc import Hashable, Mapping
from typing import Any

from detectron2.utils.file_io import PathManager

from ..categories import PanopticCategories
from ..panoptic_png import read_panoptic_png
from .problems import Problems
from .segments import SegmentMap, Segments, as_segment_map, parse_segments

__all__ = ["GroundTruth", "read_json"]


def read_json(path: str) -> dict[str, Any]:
    """A COCO panoptic JSON; ``FileNotFoundError`` when absent, ``ValueError`` when it lacks the list of annotations."""
    local_path = PathManager.get_local_path(path)
    if not PathManager.isfile(local_path):
        raise FileNotFoundError(f"Panoptic JSON {path} does not exist.")
    with open(local_path, encoding="utf-8") as f:
        content = json.load(f)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path} is no COCO panoptic JSON: it needs a list called 'annotations'.")
    return content


class GroundTruth:
    """Annotations of all pictures by position in the JSON, and their maps on demand.

    Attributes:
        categories: those of the JSON, in its order.
        category_index: data set id → index in ``categories.dataset_ids``.
        problems: what is wrong with the JSON; what is wrong with a PNG shows itself when the picture is read.
    """

    def __init__(self, json_file: str, folder: str, cache_bytes: int = 0, png_decoder: str | None = None) -> None:
        """
        Args:
            json_file: COCO panoptic JSON.
            folder: where its PNGs are.
            cache_bytes: how much memory decoded maps may take (about 20 KB a COCO picture as runs). When it is full the
                maps in it stay: every evaluation goes through all pictures in turn, so replacing them would help none.
            png_decoder: see ``panoptic_png.read_panoptic_rgb``.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: the JSON has no annotations or no proper categories.
        """
        content = read_json(json_file)
        self._folder = PathManager.get_local_path(folder)
        if not PathManager.isdir(self._folder):
            raise FileNotFoundError(f"Folder {folder} with the ground truth's panoptic PNGs does not exist.")
        self._png_decoder = png_decoder
        self.categories = PanopticCategories([{"name": str(c.get("id")), **c} for c in content.get("categories", [])])
        self.category_index = {id_: index for index, id_ in enumerate(self.categories.dataset_ids)}
        self.problems = Problems()
        self.image_ids: list[Hashable] = []
        self._file_names: list[str] = []
        self._segments: list[Segments] = []
        self._positions: dict[Hashable, int] = {}
        for position, annotation in enumerate(content["annotations"]):
            self._add(position, annotation)
        self._cache: dict[int, SegmentMap] = {}
        self._cache_bytes_left = cache_bytes

    def _add(self, position: int, annotation: Mapping[str, Any]) -> None:
        image_id = annotation["image_id"]
        segments, problems = parse_segments(annotation["segments_info"], self.category_index)
        if image_id in self._positions:
            problems.insert(0, "the ground truth's JSON has this picture more than once")
        for problem in problems:
            self.problems.add(f"picture {image_id!r}, ground truth: {problem}", position)
        self._positions[image_id] = position
        self.image_ids.append(image_id)
        self._file_names.append(annotation["file_name"])
        self._segments.append(segments)

    def __len__(self) -> int:
        return len(self.image_ids)

    def position(self, image_id: Hashable) -> int | None:
        """Where the JSON has a picture, None if nowhere."""
        return self._positions.get(image_id)

    def segment_map(self, position: int) -> SegmentMap:
        """The map of a picture; ``FileNotFoundError`` or ``ValueError`` when its PNG is absent, broken or not 8-bit RGB."""
        cached = self._cache.get(position)
        if cached is not None:
            return cached
        path = os.path.join(self._folder, self._file_names[position])
        result = as_segment_map(read_panoptic_png(path, self._png_decoder), self._segments[position])
        if result.nbytes <= self._cache_bytes_left:
            self._cache_bytes_left -= result.nbytes
            self._cache[position] = result
        return result
