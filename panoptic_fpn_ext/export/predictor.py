"""An exported file in place of a model and its weights."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data.catalog import Metadata

from ..structures import SegmentInfo
from .runtimes import Outputs, open_session

__all__ = ["ExportedPredictor"]


class ExportedPredictor:
    """:class:`~panoptic_fpn_ext.engine.PanopticPredictor`, with ONNX Runtime or OpenVINO for PyTorch.

    Attributes:
        metadata: names and colours of the classes, from the file.
        description: all that the file says of itself, see :func:`~panoptic_fpn_ext.export.description.describe`.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        """Open a file; arguments and errors as :func:`~panoptic_fpn_ext.export.runtimes.open_session`.

        Raises:
            ValueError: also of a file whose images come resized.
        """
        self._session, self.description = open_session(path, threads)
        if self.description["resize"] is None:
            raise ValueError(f"{path} takes resized images; write one that resizes them itself.")
        self.metadata = Metadata(name=str(path)).set(**self.description["classes"])
        rows = self.description["categories"]
        self._category_ids = {row["id"]: row["category_id"] for row in rows}

    def __call__(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Predict one image.

        Args:
            image: uint8 (H, W, 3) in BGR order.

        Returns:
            ``panoptic_seg``: int32 (H, W) and the list of its segments, each with ``area`` too; things lack
            ``instance_id``, since there are no other instances.

        Raises:
            ValueError: another dtype or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"ExportedPredictor needs a uint8 image of shape (H, W, 3), got {image.dtype} {image.shape}."
            )
        is_bgr = self.description["input_format"] == "BGR"
        found = self._session({"image": np.ascontiguousarray(image if is_bgr else image[:, :, ::-1])})
        return {"panoptic_seg": (torch.from_numpy(found["panoptic_seg"]), self._segments_info(found))}

    def _segments_info(self, found: Outputs) -> list[SegmentInfo]:
        names = ("segment_id", "category_id", "isthing", "score", "area")
        infos = []
        for id_, category, isthing, score, area in zip(*(found[name].tolist() for name in names), strict=True):
            info = SegmentInfo(id=id_, category_id=self._category_ids[category], isthing=isthing, area=area)
            if isthing:
                info["score"] = score
            infos.append(info)
        return infos
