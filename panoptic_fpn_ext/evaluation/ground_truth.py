"""The ground truth of a panoptic dataset, in COCO's format, read image by image."""

import json
import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils.file_io import PathManager

from ..categories import PanopticCategories
from ..panoptic_png import MAX_SEGMENT_ID, read_panoptic_words
from ..unique_names import UniqueNames
from .problems import Problems
from .segments import SegmentMap, Segments, as_segment_map, as_segment_maps, parse_segments

__all__ = ["GroundTruth", "read_json"]


def read_json(path: str) -> dict[str, Any]:
    """A COCO panoptic JSON; ``FileNotFoundError`` when absent, ``ValueError`` when it is no JSON or lacks the list
    of annotations."""
    local_path = PathManager.get_local_path(path)
    if not PathManager.isfile(local_path):
        raise FileNotFoundError(f"Panoptic JSON {path} does not exist.")
    with open(local_path, encoding="utf-8") as f:
        try:
            content = json.load(f)
        except ValueError as error:  # no JSON, or no text
            raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path} is no COCO panoptic JSON: it needs a list called 'annotations'.")
    return content


class GroundTruth:
    """Annotations of all images by position in the JSON, and their maps on demand.

    Attributes:
        categories: those of the JSON, in its order; ``category_list`` has them as they are written there.
        category_index: dataset id → index in ``categories.dataset_ids``.
        problems: what is wrong with the JSON; what is wrong with a PNG shows itself when the image is read.
        png_names: by position, what a prediction's PNG is called: as the ground truth's, with ``_2``, ``_3`` … where
            PNGs of different folders are called the same.
    """

    def __init__(self, json_file: str, folder: str, cache_bytes: int = 0, png_decoder: str | None = None) -> None:
        """
        Args:
            json_file: COCO panoptic JSON.
            folder: where its PNGs are.
            cache_bytes: how much memory decoded maps may take (about 20 KB a COCO image as runs). When it is full the
                maps in it stay: every evaluation goes through all images in turn, so replacing them would help none.
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
        self.category_list: list[dict[str, Any]] = content.get("categories", [])
        try:
            # In the JSON's order, in which panopticapi adds up the figures of the categories.
            named = [{"name": str(c.get("id")), **c} for c in self.category_list]
            self.categories = PanopticCategories(named, as_listed=True)
        except ValueError as error:
            raise ValueError(f"{json_file}: {error}") from error
        self.category_index = {id_: index for index, id_ in enumerate(self.categories.dataset_ids)}
        self.problems = Problems()
        self.image_ids: list[Hashable] = []
        self._file_names: list[str] = []
        self._segments: list[Segments] = []
        self._positions: dict[Hashable, int] = {}
        for position, annotation in enumerate(content["annotations"]):
            try:
                self._add(position, annotation)
            except KeyError as error:
                raise ValueError(f"{json_file}: annotation {position} lacks the field {error}.") from error
            except TypeError as error:  # a list that is null, say
                raise ValueError(f"{json_file}: annotation {position} is not as COCO has it ({error}).") from error
        names = UniqueNames()
        self.png_names = [names.take(file_name) + ".png" for file_name in self._file_names]
        self._cache: dict[int, SegmentMap] = {}
        self._cache_bytes_left = cache_bytes

    def _add(self, position: int, annotation: Mapping[str, Any]) -> None:
        image_id = annotation["image_id"]
        segments, problems = parse_segments(annotation["segments_info"], self.category_index)
        if image_id in self._positions:
            problems.insert(0, "the ground truth's JSON has this image more than once")
        for problem in problems:
            self.problems.add(f"image {image_id!r}, ground truth: {problem}", position)
        self._positions[image_id] = position
        self.image_ids.append(image_id)
        self._file_names.append(annotation["file_name"])
        self._segments.append(segments)

    def __len__(self) -> int:
        return len(self.image_ids)

    def position(self, image_id: Hashable) -> int | None:
        """Where the JSON has an image, None if nowhere."""
        return self._positions.get(image_id)

    def compare(
        self, position: int, pred_ids: npt.NDArray[np.integer], pred_segments: Segments
    ) -> tuple[SegmentMap, SegmentMap]:
        """The map of an image and that of a prediction (integers (H, W), 0 is void).

        Raises:
            FileNotFoundError: there is no PNG.
            ValueError: it is broken, not 8-bit RGB or of another size, or the prediction is no map.
        """
        gt = self._cache.get(position)
        if gt is None:
            path = os.path.join(self._folder, self._file_names[position])
            gt_words, gt_segments = read_panoptic_words(path, self._png_decoder), self._segments[position]
            if self._cache_bytes_left <= 0:
                return as_segment_maps(gt_words, gt_segments, pred_ids, pred_segments, MAX_SEGMENT_ID)
            gt = self._cache[position] = as_segment_map(gt_words, gt_segments, MAX_SEGMENT_ID)
            self._cache_bytes_left -= gt.nbytes
        return gt, as_segment_map(pred_ids, pred_segments)
