"""One image of the synthetic street: thrown, drawn back to front, turned into segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .camera import Camera, throw_camera
from .canvas import Canvas, Dice
from .categories import COLOURS, THINGS
from .ground import Layout, cast_shadows, paint_ground, paint_sky, throw_layout
from .light import Light, develop, throw_light
from .props import throw_scenery, throw_things
from .town import build_town
from .walls import Builder

FIRST_THING = 1000  # canvas numbers below are category ids of stuff
SMALLEST_THING, SMALLEST_STUFF = 48, 150  # px in an image of 160 rows; what is smaller becomes void
LEAST_VISIBLE = 0.25  # a thing that shows less of itself becomes void


@dataclass(frozen=True)
class StreetImage:
    """A drawn scene.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        ids: int32 (H, W), segment ids as in a COCO panoptic PNG, 0 is void.
        segments: COCO ``segments_info`` of exactly the ids that occur: id, category_id, area (px),
            bbox [x, y, width, height] (px), iscrowd.
    """

    image: np.ndarray
    ids: np.ndarray
    segments: list[dict[str, Any]]


def draw_street(seed: int, split: int, index: int, height: int = 160, width: int = 256) -> StreetImage:
    """Image ``index`` of a split; it depends on these five numbers and on nothing else.

    Args:
        seed, split, index: whole numbers >= 0.
        height, width: size in pixels, at least 64 each.

    Raises:
        ValueError: a size below 64 or a negative number.
    """
    if min(height, width) < 64 or min(seed, split, index) < 0:
        raise ValueError(
            f"A street needs seed, split, index >= 0 and at least 64 x 64 pixels, got seed={seed}, "
            f"split={split}, index={index}, height={height}, width={width}."
        )
    dice = Dice(seed, split, index, 0)
    camera, light, layout = throw_camera(dice, height, width), throw_light(dice), throw_layout(dice)
    canvas = Canvas(height, width, noise=Dice(seed, split, index, 1))
    paint_sky(canvas, camera, light, dice)
    paint_ground(canvas, camera, layout, dice)
    cast_shadows(canvas, camera, layout, light, dice)
    build_town(Builder(canvas, camera, light.lamps, dice), layout)
    owners = _furnish(canvas, camera, layout, light, dice)
    if not layout.crossing and dice.chance(0.2):
        _paint_bonnet(canvas, dice)
    ids, segments = _label(canvas, owners, dice)
    return StreetImage(develop(canvas, light, dice), ids, segments)


def _furnish(
    canvas: Canvas, camera: Camera, layout: Layout, light: Light, dice: Dice
) -> dict[int, tuple[int, bool, int]]:
    """Draw what stands there back to front.

    Returns:
        For each canvas number of a thing: category, iscrowd, and its px before others hide it.
    """
    props = throw_things(dice, camera, layout) + throw_scenery(dice, camera, layout)
    owners: dict[int, tuple[int, bool, int]] = {}
    for prop in sorted(props, key=lambda p: -p.ahead):
        is_thing = prop.category in THINGS
        number = FIRST_THING + len(owners) if is_thing else prop.category
        prop.paint(canvas, number, light, dice)
        if is_thing:
            drawn = int(np.count_nonzero(canvas.segment == number))
            owners[number] = (prop.category, prop.iscrowd, drawn)
    return owners


def _paint_bonnet(canvas: Canvas, dice: Dice) -> None:
    """The bonnet of the car that carries the camera; unlabelled."""
    high = canvas.height * dice.between(0.05, 0.12)
    middle, half = canvas.width * dice.between(0.4, 0.6), canvas.width * dice.between(0.35, 0.6)
    region = canvas.ellipse(middle, float(canvas.height), half, high)
    canvas.paint(region, dice.jitter((70, 70, 80), 50), 0, 1.0)
    canvas.shade(region.where(region.y < canvas.height - 0.6 * high), 1.3)


def _label(
    canvas: Canvas, owners: dict[int, tuple[int, bool, int]], dice: Dice
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segment ids and COCO ``segments_info`` of what is visible enough to be labelled."""
    ids = np.zeros_like(canvas.segment)
    segments: list[dict[str, Any]] = []
    unit = canvas.height * canvas.height / (160 * 160)
    for number in np.unique(canvas.segment).tolist():
        mask = canvas.segment == number
        area = int(np.count_nonzero(mask))
        category, iscrowd, drawn = owners.get(number, (number, False, 0))
        least = max(SMALLEST_THING * unit, LEAST_VISIBLE * drawn) if number in owners else SMALLEST_STUFF * unit
        if number == 0 or area < least:
            continue
        segment_id = _free_id(category, number in owners, {s["id"] for s in segments}, dice)
        ids[mask] = segment_id
        segments.append(_describe(mask, segment_id, category, area, iscrowd))
    return ids, segments


def _describe(mask: np.ndarray, segment_id: int, category: int, area: int, iscrowd: bool) -> dict[str, Any]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    bbox = [left, top, int(cols[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        "id": segment_id,
        "category_id": category,
        "area": area,
        "bbox": bbox,
        "iscrowd": int(iscrowd),
    }


def _free_id(category: int, is_thing: bool, taken: set[int], dice: Dice) -> int:
    """An id whose colour in the PNG resembles the category's; as in COCO, ids say nothing else."""
    while True:
        spread = 30 if is_thing else 0
        red, green, blue = (min(255, max(1, c + dice.whole(-spread, spread))) for c in COLOURS[category])
        if (candidate := red + 256 * green + 65536 * blue) not in taken:
            return candidate
