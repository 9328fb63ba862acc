"""From regions that may overlap to a panoptic map: who is on top, and what changed hands. Pure.

Shapes: H, W image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...index_masks import index_boxes
from .regions import Region

__all__ = ["Painted", "paint"]


@dataclass
class Painted:
    """A panoptic map and how it came about.

    ``panoptic``: int32 (H, W), segment ids 1 … K, 0 for void. ``segments``: COCO's ``segments_info``, in id order.
    ``taken``: pixels that a region on top took from one below, by (category below, category on top).
    ``hidden``: segments that have no pixel left, by category. ``left_out``: bool (H, W), pixels that are annotated as
    something that is void, None if there are none.
    """

    panoptic: npt.NDArray[np.int32]
    segments: list[dict[str, Any]]
    taken: Counter[tuple[int, int]] = field(default_factory=Counter)
    hidden: Counter[int] = field(default_factory=Counter)
    left_out: npt.NDArray[np.bool_] | None = None


def paint(
    regions: Sequence[Region],
    size: tuple[int, int],
    isthing: Mapping[int, bool],
    layers: Mapping[int, int],
    void: Collection[int] = (),
) -> Painted:
    """Decide overlaps: the region of the higher layer is on top, then that of the higher z, then a thing on stuff, then
    the smaller one, then the later one.

    All regions of a stuff category are one segment, so are all crowd regions of a thing category, and regions of one
    group.

    Args:
        regions: of one image.
        size: (H, W).
        isthing: by category (dataset id).
        layers: by category; one that is missing is in layer 0.
        void: categories whose pixels are void, also where they lie on others.
    """
    keys: dict[Any, int] = {}
    segment_of = [keys.setdefault(_segment_key(i, r, isthing), len(keys) + 1) for i, r in enumerate(regions)]
    categories = {segment: r.category for segment, r in zip(segment_of, regions, strict=True)}
    crowds = {segment: r.iscrowd and isthing[r.category] for segment, r in zip(segment_of, regions, strict=True)}
    ids = np.zeros(size, np.int32)
    unlabelled = {0, *(segment for segment, category in categories.items() if category in void)}
    taken: Counter[tuple[int, int]] = Counter()
    order = sorted(range(len(regions)), key=lambda i: _height(regions[i], isthing, layers))
    for i in order:
        region, segment = regions[i], segment_of[i]
        window = region.mask.window(ids)
        below = np.bincount(window[region.mask.mask])
        for other in np.flatnonzero(below).tolist():
            if other != segment and not {other, segment} & unlabelled:
                taken[categories[other], region.category] += int(below[other])
        window[region.mask.mask] = segment
    listed = {segment: category for segment, category in categories.items() if segment not in unlabelled}
    painted = _numbered(ids, listed, crowds, taken)
    return replace(painted, left_out=(ids > 0) & (painted.panoptic == 0)) if len(unlabelled) > 1 else painted


def _segment_key(index: int, region: Region, isthing: Mapping[int, bool]) -> Any:
    """Regions of the same key are one segment."""
    if not isthing[region.category]:
        return "stuff", region.category
    if region.iscrowd:
        return "crowd", region.category
    return ("region", index) if region.group is None else ("group", region.category, region.group)


def _height(region: Region, isthing: Mapping[int, bool], layers: Mapping[int, int]) -> tuple[float, ...]:
    return layers.get(region.category, 0), region.z, isthing[region.category], -region.mask.area


def _numbered(
    ids: npt.NDArray[np.int32], categories: Mapping[int, int], crowds: Mapping[int, bool], taken: Counter[Any]
) -> Painted:
    """Number the segments that have pixels 1 … K, in their order, and list them."""
    count = max(categories, default=0)
    areas = np.bincount(ids.reshape(-1), minlength=count + 1)
    boxes = index_boxes(ids, count).astype(int).tolist()
    numbers = np.zeros(len(areas), np.int32)
    segments: list[dict[str, Any]] = []
    for segment in (s for s in sorted(categories) if areas[s]):
        numbers[segment] = len(segments) + 1
        x0, y0, x1, y1 = boxes[segment]
        segments.append(
            {
                "id": len(segments) + 1,
                "category_id": categories[segment],
                "iscrowd": int(crowds[segment]),
                "area": int(areas[segment]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
        )
    hidden = Counter(categories[s] for s in categories if not areas[s])
    return Painted(numbers[ids], segments, taken, hidden)
