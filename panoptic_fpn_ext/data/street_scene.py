"""One picture of the synthetic street: the scene is thrown, drawn back to front and turned into segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .street_camera import Camera, throw_camera
from .street_canvas import Canvas, Dice
from .street_categories import COLOURS
from .street_ground import Layout, cast_shadows, paint_ground, paint_sky, throw_layout
from .street_light import Light, develop, throw_light
from .street_props import throw_scenery, throw_things
from .street_walls import (
    HOUSES,
    LEAVES,
    Spot,
    paint_fence,
    paint_hedge,
    paint_house,
    paint_roof,
    stand_wall,
)  # fmt: skip

FIRST_THING = 1000  # canvas numbers below are category ids of stuff
SMALLEST_THING, SMALLEST_STUFF = 48, 80  # px in a picture of 160 rows; what is smaller becomes void
LEAST_VISIBLE = 0.25  # a thing that shows less of itself becomes void


@dataclass(frozen=True)
class StreetPicture:
    """A drawn scene.

    ``image``: uint8 (H, W, 3) RGB. ``ids``: int32 (H, W), segment ids as in a COCO panoptic PNG, 0 is void.
    ``segments``: COCO ``segments_info`` of exactly the ids that occur: id, category_id, area (px),
    bbox [x, y, width, height] (px), iscrowd.
    """

    image: np.ndarray
    ids: np.ndarray
    segments: list[dict[str, Any]]


def draw_street(
    seed: int, split: int, index: int, height: int = 160, width: int = 256
) -> StreetPicture:
    """Picture ``index`` of a split; it depends on these five numbers and on nothing else.

    Args:
        seed, split, index: whole numbers >= 0.
        height, width: size in pixels, at least 64 each.

    Raises:
        ValueError: a size below 64 or a negative number.
    """
    if min(height, width) < 64 or min(seed, split, index) < 0:
        raise ValueError(
            f"A street needs seed, split, index >= 0 and at least 64 x 64 pixels, got seed={seed}, split={split}, "
            f"index={index}, height={height}, width={width}."
        )
    dice = Dice(seed, split, index, 0)
    camera, light, layout = throw_camera(dice, height, width), throw_light(dice), throw_layout(dice)
    canvas = Canvas(height, width, noise=Dice(seed, split, index, 1))
    paint_sky(canvas, camera, light, dice)
    paint_ground(canvas, camera, layout, dice)
    cast_shadows(canvas, camera, layout, light, dice)
    _build(canvas, camera, layout, light, dice)
    owners = _furnish(canvas, camera, layout, light, dice)
    if not layout.crossing and dice.chance(0.2):
        _paint_bonnet(canvas, dice)
    ids, segments = _label(canvas, owners, dice)
    return StreetPicture(develop(canvas, light, dice), ids, segments)


def _build(canvas: Canvas, camera: Camera, layout: Layout, light: Light, dice: Dice) -> None:
    """Everything upright that does not move, far things first."""
    backdrop = dice.pick(("hedge", "town", "none"))
    _close_view(canvas, camera, (-160.0, 160.0), 120.0, backdrop, light, dice)
    if layout.crossing:
        reach = canvas.width / camera.scale(layout.edge(1))
        _close_view(
            canvas, camera, (-reach, reach), layout.edge(1), layout.districts[1], light, dice
        )
        return
    if dice.chance(0.4):
        middle, reach = dice.between(-8, 8), dice.between(8, 22)
        span = (middle - reach, middle + reach)
        _close_view(
            canvas,
            camera,
            span,
            dice.between(32, 70),
            dice.pick(("town", "town", "hedge")),
            light,
            dice,
        )
    for side in (0, 1):
        _line_side(canvas, camera, layout, side, light, dice)


def _close_view(
    canvas: Canvas, camera: Camera, span: Spot, ahead: float, kind: str, light: Light, dice: Dice
) -> None:
    """Fill a stretch (from, to in metres) at a distance with what faces the camera there."""
    low, high = span
    far = ahead > 80
    if kind in ("hedge", "park"):
        height = dice.between(4, 9) if not far else dice.between(6, 16)
        wall = stand_wall(canvas, camera, (low, ahead), (high, ahead), height)
        paint_hedge(canvas, wall, height, dice.jitter(dice.pick(LEAVES), 14))
    while kind in ("town", "suburb") and low < high:
        wide = dice.between(7, 15) * (2 if far else 1)
        height = (
            dice.between(6, 16) * (1.5 if far else 1) if kind == "town" else dice.between(3.2, 5.5)
        )
        setback = 0.0 if kind == "town" else 4.0
        start, end = (low, ahead + setback), (min(high, low + wide), ahead + setback)
        wall = stand_wall(canvas, camera, start, end, height)
        paint_house(canvas, wall, dice, light.lamps, dice.jitter(dice.pick(HOUSES), 16))
        if kind == "suburb" and wall:
            paint_roof(canvas, camera, start, end, height, dice)
        low += wide + (dice.between(0.5, 6) if dice.chance(0.35) or kind == "suburb" else 0.0)
    if kind == "suburb" or (kind == "open" and dice.chance(0.5)):
        paint_fence(
            canvas,
            stand_wall(canvas, camera, (span[0], ahead), (high, ahead), dice.between(1.5, 2.2)),
            dice,
        )


def _line_side(
    canvas: Canvas, camera: Camera, layout: Layout, side: int, light: Light, dice: Dice
) -> None:
    """Build up one side of a street that leads ahead."""
    edge, district = layout.edge(side), layout.districts[side]
    outward = 1.0 if side else -1.0
    edge = outward * max(1.6, outward * edge)
    if district in ("town", "suburb"):
        _line_houses(canvas, camera, edge, outward, district, light, dice)
    if district == "park":
        height = dice.between(3, 8)
        wall = stand_wall(canvas, camera, (edge, dice.between(4, 15)), (edge, 90.0), height)
        paint_hedge(canvas, wall, height, dice.jitter(dice.pick(LEAVES), 14))
    if district == "suburb" or dice.chance(0.25):
        start, end = dice.between(1.5, 6.0), dice.between(20.0, 60.0)
        paint_fence(
            canvas,
            stand_wall(canvas, camera, (edge, start), (edge, end), dice.between(1.4, 2.2)),
            dice,
        )


def _line_houses(
    canvas: Canvas,
    camera: Camera,
    edge: float,
    outward: float,
    district: str,
    light: Light,
    dice: Dice,
) -> None:
    """Houses along one side, from the far end to the camera."""
    line = edge + outward * (4.0 if district == "suburb" else 0.0)
    start, blocks = dice.between(2.0, 10.0), []
    while start < 90:
        length = dice.between(8, 18)
        blocks.append((start, start + length))
        start += length + (
            dice.between(1.5, 8) if dice.chance(0.35) or district == "suburb" else 0.0
        )
    for near, far in reversed(blocks):
        height = dice.between(6, 18) if district == "town" else dice.between(3.2, 6)
        colour = dice.jitter(dice.pick(HOUSES), 16)
        red, green, blue = colour
        front = stand_wall(canvas, camera, (line, near), (line + outward * 10, near), height)
        paint_house(canvas, front, dice, light.lamps, (red * 0.88, green * 0.88, blue * 0.88))
        if front and district == "suburb":
            paint_roof(
                canvas, camera, *sorted(((line, near), (line + outward * 10, near))), height, dice
            )
        paint_house(
            canvas,
            stand_wall(canvas, camera, (line, near), (line, far), height),
            dice,
            light.lamps,
            colour,
        )


def _furnish(
    canvas: Canvas, camera: Camera, layout: Layout, light: Light, dice: Dice
) -> dict[int, tuple[int, bool, int]]:
    """Draw scenery and things back to front; returns canvas number -> (category, iscrowd, px before occlusion)."""
    props = throw_things(dice, camera, layout) + throw_scenery(dice, camera, layout)
    owners: dict[int, tuple[int, bool, int]] = {}
    for prop in sorted(props, key=lambda p: -p.ahead):
        is_stuff = prop.category == 0 or prop.category > 100
        number = prop.category if is_stuff else FIRST_THING + len(owners)
        prop.paint(canvas, number, light, dice)
        if not is_stuff:
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
        least = (
            max(SMALLEST_THING * unit, LEAST_VISIBLE * drawn)
            if number in owners
            else SMALLEST_STUFF * unit
        )
        if number == 0 or area < least:
            continue
        segment_id = _free_id(category, number in owners, {s["id"] for s in segments}, dice)
        ids[mask] = segment_id
        segments.append(_describe(mask, segment_id, category, area, iscrowd))
    return ids, segments


def _describe(
    mask: np.ndarray, segment_id: int, category: int, area: int, iscrowd: bool
) -> dict[str, Any]:
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
        red, green, blue = (
            min(255, max(1, c + dice.whole(-spread, spread))) for c in COLOURS[category]
        )
        if (candidate := red + 256 * green + 65536 * blue) not in taken:
            return candidate
