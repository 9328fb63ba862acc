"""The images of a report: which ones, how large, and what the page's viewer needs of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..panoptic_map import segment_index_map
from .encoding import encode_map, encode_photo, shrink_map, thumbnail_size
from .sources import ImageFiles, SegmentFile, Source

logger = logging.getLogger(__name__)

__all__ = ["Budget", "Found", "encoded_images"]

_SIDES = ((30, 1024), (80, 800), (200, 560), (10**9, 440))
"""How long the longer side of an image may be, in px, with so many images."""


@dataclass
class Budget:
    """How much of a report images may be: their number and, all together, their bytes."""

    images: int = 200
    bytes: int = 22_000_000
    used: int = field(default=0, init=False)

    def side(self, num_images: int) -> int:
        """Longer side of an image, in px."""
        return next(side for most, side in _SIDES if num_images <= most)

    def take(self, size: int) -> bool:
        """Whether so many more bytes fit; if so, they are taken."""
        fits = self.used + size <= self.bytes
        self.used += size if fits else 0
        return fits


Found = Mapping[int, Mapping[str, Any]]
"""What is known of an image's segments, by their id: ``cause`` (index), ``cost`` (points), ``iou``, ``match`` (id)."""


def encoded_images(
    source: Source, chosen: Sequence[int], found: Mapping[int, Sequence[tuple[Found, Found]]], budget: Budget
) -> Iterator[str | None]:
    """JSON of each chosen image, read and encoded one by one, a line each; None for one that the budget leaves out.

    Args:
        source: where the files are.
        chosen: positions of images in it, the most important ones first.
        found: by position, of each model, what is known of the ground truth's segments and of its own.
        budget: is used up.
    """
    side = budget.side(len(chosen))
    for position in chosen:
        text = json.dumps(_encoded(source, source.images[position], side, found.get(position, ())), allow_nan=False)
        text = text.replace("<", "\\u003c")
        yield text if budget.take(len(text)) else None


def _encoded(source: Source, image: ImageFiles, side: int, found: Sequence[tuple[Found, Found]]) -> dict[str, Any]:
    pixels = _pixels(image)
    maps = [one for one in (image.truth, *image.predictions) if one is not None]
    ids = [one.read() for one in maps]
    size = thumbnail_size((ids[0].shape[0], ids[0].shape[1]), side)
    order = [{int(s["id"]): k for k, s in enumerate(one.segments)} for one in maps]
    encoded: list[dict[str, Any]] = [
        {
            "map": encode_map(shrink_map(segment_index_map(i, list(places)), size, len(places))),
            "segments": _segments(source, one, i),
        }
        for one, i, places in zip(maps, ids, order, strict=True)
    ]
    truth = encoded.pop(0) if image.truth is not None else None
    if truth is not None:
        for model, (of_truth, of_prediction) in enumerate(found):
            _note(truth["segments"], of_truth, order[model + 1])
            _note(encoded[model]["segments"], of_prediction, order[0])
    photo = None if pixels is None else encode_photo(pixels, size)
    return {"size": [size[1], size[0]], "photo": photo, "truth": truth, "predictions": encoded}


def _pixels(image: ImageFiles) -> npt.NDArray[np.uint8] | None:
    """The image, None where there is none or it cannot be read: its segments can be shown all the same."""
    try:
        return image.read()
    except (OSError, ValueError) as error:
        logger.warning(f"{error} Its segments are shown on grey.")
        return None


def _segments(source: Source, one: SegmentFile, ids: npt.NDArray[np.integer]) -> list[dict[str, Any]]:
    values, areas = np.unique(ids, return_counts=True)
    area = dict(zip(values.tolist(), areas.tolist(), strict=True))
    rows = []
    for segment in one.segments:
        row = {"category": source.category_index[segment["category_id"]], "area": area.get(int(segment["id"]), 0)}
        row |= {"id": int(segment["id"]), "found": []}
        if isinstance(segment.get("score"), int | float):
            row["score"] = round(float(segment["score"]), 4)
        if segment.get("iscrowd"):
            row["crowd"] = 1
        rows.append(row)
    return rows


def _note(segments: Iterable[dict[str, Any]], found: Found, others: Mapping[int, int]) -> None:
    """Add what is known; ``match`` becomes the place in the other map's list."""
    for segment in segments:
        known = dict(found.get(segment["id"], {}))
        if "match" in known:
            known["match"] = others[known["match"]]
        segment["found"].append(known)
