"""Predictions of any images on disk, in COCO's panoptic format."""

import os
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...categories import PanopticCategories
from ...evaluation.prediction_writer import write_json
from ...panoptic_png import write_panoptic_png
from ...structures import VOID_ID
from ...unique_names import UniqueNames

__all__ = ["PanopticResultWriter"]


class PanopticResultWriter:
    """Writes ``OUTPUT_DIR/predictions/*.png`` image by image and ``OUTPUT_DIR/predictions.json`` when it is closed.

    A context manager: the JSON lists what was finished, also when an exception ends the block. A PNG has its image's
    stem for a name; images with the same stem get ``_2``, ``_3`` … and the JSON tells which is which.
    """

    def __init__(self, output_dir: str, categories: PanopticCategories) -> None:
        """
        Args:
            output_dir: a local folder, made if need be; results in it are replaced.
            categories: of the dataset whose classes the model predicts.
        """
        self._json_path = os.path.join(output_dir, "predictions.json")
        self._png_dir = os.path.join(output_dir, "predictions")
        self._categories = categories
        self._names = UniqueNames()
        self._images: dict[Hashable, dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []
        os.makedirs(self._png_dir, exist_ok=True)

    def __enter__(self) -> "PanopticResultWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(
        self,
        image_id: Hashable,
        file_name: str,
        panoptic_seg: torch.Tensor | npt.NDArray[np.integer],
        segments_info: Sequence[Mapping[str, Any]],
        *,
        png_name: str | None = None,
    ) -> None:
        """Write one image.

        Args:
            image_id: number or text, once an image.
            file_name: of the image, for the JSON's list of images.
            panoptic_seg: integer (H, W) segment ids, 0 is void; on any device.
            segments_info: ``id``, ``category_id`` (contiguous for things, semantic for stuff) and ``isthing`` of each
                segment, and ``score`` if it has one.
            png_name: name of the PNG instead of the image's stem.

        Raises:
            ValueError: an image id or a PNG name for the second time, or a map that does not agree with its segments.
            KeyError: no such category.
        """
        if image_id in self._images:
            raise ValueError(
                f"Image {file_name}: image id {image_id!r} is that of {self._images[image_id]['file_name']}."
            )
        ids = _as_array(panoptic_seg)
        segments = self._segments(file_name, ids, segments_info)
        wanted = png_name or file_name
        name = self._names.take(wanted) + ".png"
        if png_name is not None and name != png_name:
            raise ValueError(f"Image {file_name}: a PNG of the name {png_name} is written already.")
        write_panoptic_png(os.path.join(self._png_dir, name), ids)
        height, width = ids.shape
        self._images[image_id] = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        self._annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})

    def close(self) -> None:
        """Write the JSON of the images so far, as a whole; writing may go on afterwards."""
        content = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": self._categories.rows,
        }
        write_json(self._json_path, content)

    def _segments(
        self, file_name: str, ids: npt.NDArray[np.int64], segments_info: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        present = set(np.unique(ids).tolist()) - {VOID_ID}
        listed = [int(s["id"]) for s in segments_info]
        if sorted(listed) != sorted(present):
            raise ValueError(f"Image {file_name}: the map has segments {sorted(present)}, the list {sorted(listed)}.")
        return [self._segment(ids == s["id"], s) for s in segments_info]

    def _segment(self, mask: npt.NDArray[np.bool_], segment: Mapping[str, Any]) -> dict[str, Any]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        category_id = self._categories.dataset_id(segment["category_id"], segment["isthing"])
        row = {
            "id": int(segment["id"]),
            "category_id": category_id,
            "name": self._categories.name(category_id),
            "isthing": int(segment["isthing"]),
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
        }
        return {**row, "score": float(segment["score"])} if "score" in segment else row


def _as_array(panoptic_seg: torch.Tensor | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    array = panoptic_seg.cpu().numpy() if isinstance(panoptic_seg, torch.Tensor) else panoptic_seg
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"A panoptic map is an integer array of shape (H, W), got {array.dtype} {array.shape}.")
    return array.astype(np.int64)
