"""The ground truth of a panoptic dataset, in COCO's format, read image by image."""

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils.file_io import PathManager

from ..categories import PanopticCategories
from ..coco_json import image_key, read_panoptic
from ..panoptic_png import MAX_SEGMENT_ID, read_panoptic_words
from ..unique_names import UniqueNames
from .segments import SegmentMap, Segments, as_segment_map, as_segment_maps, parse_segments

__all__ = ["GroundTruth"]


class GroundTruth:
    """Annotations of all images by position in the JSON, and their maps on demand.

    Attributes:
        categories: those of the JSON, in its order; ``category_list`` has them as :func:`read_panoptic` does.
        category_index: dataset id → index in ``categories.dataset_ids``.
        isthing: bool by that index.
        image_ids, file_names: by position, the latter those of the PNGs.
        misfit: of the first PNG, of those read so far, that does not agree with its list of segments; panopticapi and
            so :meth:`compare` take them.
        png_names: by position, what a prediction's PNG is called: as the ground truth's, with ``_2``, ``_3`` … where
            PNGs of different folders are called the same.
    """

    def __init__(
        self,
        json_file: str,
        folder: str,
        cache_bytes: int = 0,
        png_decoder: str | None = None,
        unlisted: Sequence[dict[str, Any]] = (),
    ) -> None:
        """
        Args:
            json_file: COCO panoptic JSON.
            folder: where its PNGs are.
            cache_bytes: how much memory decoded maps may take (about 20 KB a COCO image as runs). When it is full the
                maps in it stay: every evaluation goes through all images in turn, so replacing them would help none.
            png_decoder: see ``panoptic_png.read_panoptic_rgb``.
            unlisted: categories to count besides those of the JSON, which has no segment of them.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: the JSON is not in COCO panoptic format; what is wrong with a PNG shows itself when the image
                is read.
        """
        content = read_panoptic(json_file, complete=False)
        self._folder = PathManager.get_local_path(folder)
        if not PathManager.isdir(self._folder):
            raise FileNotFoundError(f"Folder {folder} with the ground truth's panoptic PNGs does not exist.")
        self._png_decoder = png_decoder
        self._json_file = json_file
        self.category_list: list[dict[str, Any]] = [*content["categories"], *unlisted]
        # In the JSON's order, in which panopticapi adds up the figures of the categories.
        named = [{"name": str(row["id"]), **row} for row in self.category_list]
        self.categories = PanopticCategories(named, as_listed=True)
        self.category_index = {id_: index for index, id_ in enumerate(self.categories.dataset_ids)}
        self.isthing = np.array([self.categories.isthing(id_) for id_ in self.category_index], dtype=np.bool_)
        annotations = content["annotations"]
        self.image_ids: list[Hashable] = [annotation["image_id"] for annotation in annotations]
        self.file_names: list[str] = [annotation["file_name"] for annotation in annotations]
        self._segments = [parse_segments(a["segments_info"], self.category_index)[0] for a in annotations]
        self._positions = {image_key(image_id): position for position, image_id in enumerate(self.image_ids)}
        names = UniqueNames()
        self.png_names = [names.take(file_name) + ".png" for file_name in self.file_names]
        self.misfit = ""
        self._cache: dict[int, SegmentMap] = {}
        self._cache_bytes_left = cache_bytes

    def __len__(self) -> int:
        return len(self.image_ids)

    def position(self, image_id: Hashable) -> int | None:
        """Where the JSON has an image, None if nowhere."""
        return self._positions.get(image_key(image_id))

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
            path = os.path.join(self._folder, self.file_names[position])
            gt_words, gt_segments = read_panoptic_words(path, self._png_decoder), self._segments[position]
            if self._cache_bytes_left <= 0:
                maps = as_segment_maps(gt_words, gt_segments, pred_ids, pred_segments, MAX_SEGMENT_ID)
                self._note_misfit(maps[0], path)
                return maps
            gt = self._cache[position] = as_segment_map(gt_words, gt_segments, MAX_SEGMENT_ID)
            self._cache_bytes_left -= gt.nbytes
            self._note_misfit(gt, path)
        return gt, as_segment_map(pred_ids, pred_segments)

    def _note_misfit(self, gt: SegmentMap, path: str) -> None:
        if (gt.absent or gt.unlisted) and not self.misfit:
            self.misfit = (
                f"Panoptic PNG {path} does not agree with its segments in {self._json_file}: listed ids without a "
                f"pixel are {gt.absent[:5]}, ids that the JSON does not list {gt.unlisted[:5]}."
            )
