"""Which images and segments a report shows: those that one learns most from, none twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from ..evaluation.errors import COLUMNS
from ..evaluation.errors.label_errors import find_label_errors
from .costs import Costs
from .sources import Source

__all__ = ["Shown", "choose_images", "suspected_labels", "worst_segments"]

_MOST, _PER_CLASS = 6, 2
_MOST_SUSPECTS = 60
_SUSPICIONS = {
    "class": "may be {}",
    "missing": "{} may be missing here",
    "merged": "may be several of {}",
    "border": "its border may be wrong",
}

Shown = dict[str, Any]
"""A segment to show: ``position`` of its image, ``model`` (None: the ground truth), ``index``, ``title``, ``text``."""


def choose_images(costs: Sequence[Costs], segments: Iterable[Shown], num_images: int, most: int) -> list[int]:
    """Positions of images, the most important first: those that lose most, those with worst segments and those in which
    two models differ in turn, then others from all over the dataset.
    """
    if most < 1:
        return []
    lost = np.max([one.by_image.sum(axis=1) for one in costs], axis=0)
    worst = np.argsort(-lost, kind="stable")[: max(1, most // 2)].tolist()
    differing: list[int] = []
    if len(costs) > 1:
        difference = np.abs(costs[0].by_image.sum(axis=1) - costs[1].by_image.sum(axis=1))
        differing = np.argsort(-difference, kind="stable")[: most // 4].tolist()
    with_segments = [segment["position"] for segment in segments]
    mixed = chain.from_iterable(zip_longest(worst, with_segments, differing))
    others = range(0, num_images, max(1, num_images // most))
    order = dict.fromkeys(position for position in (*mixed, *others, *range(num_images)) if position is not None)
    return list(order)[:most]


def worst_segments(source: Source, costs: Costs, model: int) -> dict[str, list[Shown]]:
    """By cause: the segments that lose most."""
    found = {
        name: [shown_segment(source, costs, model, row) for row in costs.worst(column, _MOST, _PER_CLASS)]
        for column, name in enumerate(COLUMNS)
    }
    return {name: segments for name, segments in found.items() if segments}


def suspected_labels(source: Source, costs: Costs, model: int) -> list[Shown]:
    """Segments whose label may be wrong, the most suspicious first; with ``suspicion`` and ``image``."""
    starts = np.searchsorted(costs.image, np.arange(len(source.images)))
    found = []
    for suspect in find_label_errors(costs.errors, _MOST_SUSPECTS):
        name = source.categories[suspect.predicted]["name"]
        image, what = source.images[suspect.image].name, _SUSPICIONS[suspect.kind].format(name)
        row = int(starts[suspect.image]) + suspect.row
        segment = shown_segment(source, costs, model, row, f"{what} ({suspect.suspicion:.2f}), {image}")
        found.append({**segment, "what": what, "suspicion": suspect.suspicion, "image": image})
    return found


def shown_segment(source: Source, costs: Costs, model: int, row: int, text: str = "") -> Shown:
    """What the page shows of one row of ``costs.rows``."""
    segment, position = costs.rows[row], int(costs.image[row])
    image, predicted = source.images[position], bool(segment["predicted"])
    one = image.predictions[model] if predicted else image.truth
    assert one is not None
    index = next(k for k, listed in enumerate(one.segments) if int(listed["id"]) == segment["id"])
    name = source.categories[segment["category"]]["name"]
    parts = [f"{costs.parts[row].sum():.2g} points", f"{int(segment['pixels']):,} px"]
    if segment["union"] > 0:
        parts.insert(1, f"IoU {segment['intersection'] / segment['union']:.2f}")
    return {
        "position": position,
        "model": model if predicted else None,
        "index": index,
        "title": f"{name}, {'predicted' if predicted else 'ground truth'}",
        "text": text or f"{image.name}: {', '.join(parts)}",
    }
