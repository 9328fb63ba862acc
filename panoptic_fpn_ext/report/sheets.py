"""Small sheets of image, ground truth and prediction, as TensorBoard shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..visualization import contact_sheet, draw_panoptic
from .runs import find_evaluation
from .sources import ImageFiles, SegmentFile, Source, source_of_files

__all__ = ["comparison_sheets"]

_CELL, _SIDE = 480, 960  # px
_GROUND = 96


def comparison_sheets(folder: str, most: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Images of a run's last evaluation, evenly spread, each uint8 (H, W, 3) RGB: image, ground truth, prediction.

    Raises:
        FileNotFoundError, ValueError: as :func:`.runs.find_evaluation` and :func:`.sources.source_of_files`.
    """
    record = find_evaluation(folder)
    source = source_of_files(
        record["panoptic_json"],
        [os.path.join(record["folder"], "predictions.json")],
        images=record.get("image_root"),
        gt_folder=record["panoptic_root"],
    )
    for image in source.images[:: max(1, -(-len(source.images) // most))]:
        yield contact_sheet([_row(source, image)], ("image", "ground truth", "prediction"), cell_width=_CELL)


def _row(source: Source, image: ImageFiles) -> list[npt.NDArray[np.uint8]]:
    assert image.truth is not None
    ids = [image.truth.read(), image.predictions[0].read()]
    pixels = image.read()
    if pixels is None:
        pixels = np.full((*ids[0].shape, 3), _GROUND, np.uint8)
    drawn = [_drawn(source, pixels, i, one) for i, one in zip(ids, (image.truth, image.predictions[0]), strict=True)]
    return [pixels, *drawn]


def _drawn(
    source: Source, pixels: npt.NDArray[np.uint8], ids: npt.NDArray[np.integer], one: SegmentFile
) -> npt.NDArray[np.uint8]:
    scale = min(1.0, _SIDE / max(ids.shape))
    size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    small_ids = np.asarray(cv2.resize(ids.astype(np.int32), size, interpolation=cv2.INTER_NEAREST), np.int32)
    segments = [_segment(source, segment) for segment in one.segments]
    return draw_panoptic(small, small_ids, segments, _metadata(source), hatch_void=True, vary=False)


def _segment(source: Source, segment: Mapping[str, Any]) -> dict[str, Any]:
    index = source.category_index[segment["category_id"]]
    return {**segment, "category_id": index, "isthing": bool(source.categories[index]["isthing"])}


def _metadata(source: Source) -> SimpleNamespace:
    names = [str(row["name"]) for row in source.categories]
    colors = [tuple(bytes.fromhex(color[1:])) for color in source.colors]
    return SimpleNamespace(thing_classes=names, stuff_classes=names, thing_colors=colors, stuff_colors=colors)
