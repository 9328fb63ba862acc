"""Upright surfaces beside the synthetic street: houses, fences, hedges and what closes the view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .street_camera import Camera
from .street_canvas import Canvas, Colour, Dice, Region, mix
from .street_categories import BUILDING, FENCE, VEGETATION
from .street_objects import GLASS, PAINTS

HOUSES: tuple[Colour, ...] = PAINTS[2:5] + PAINTS[7:8] + (
    (170, 95, 75), (200, 180, 160), (150, 150, 155), (215, 195, 140), (130, 110, 100), (165, 185, 195), (190, 140, 120),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = (
    (70, 110, 50),
    (95, 130, 55),
    (50, 85, 50),
    (150, 115, 50),
    (120, 125, 60),
)
Spot = tuple[float, float]  # (across, ahead) in metres


@dataclass(frozen=True)
class Wall:
    """A wall as the camera sees it.

    ``region`` are its pixels; ``length`` (metres from its start), ``up`` (metres over ground), ``depth`` (metres
    from the camera) and ``scale`` (px per metre) are float64 (h, w).
    """

    region: Region
    length: np.ndarray
    up: np.ndarray
    depth: np.ndarray
    scale: np.ndarray


def stand_wall(
    canvas: Canvas, camera: Camera, start: Spot, end: Spot, height: float
) -> Wall | None:
    """A wall of ``height`` metres from one ground point to another; None if it is out of sight or edge-on."""
    if camera.project(*start)[0] > camera.project(*end)[0]:
        start, end = end, start
    (x0, y0), (x1, y1) = camera.project(*start), camera.project(*end)
    scale0, scale1 = camera.scale(start[1]), camera.scale(end[1])
    if x1 - x0 < 1 or x1 < 0 or x0 > canvas.width:
        return None
    region = canvas.polygon(
        [(x0, y0), (x1, y1), (x1, y1 - height * scale1), (x0, y0 - height * scale0)]
    )
    part = (region.x - x0) / (x1 - x0)
    scale = scale0 + part * (scale1 - scale0)
    up = (y0 + part * (y1 - y0) - region.y) / scale
    dx, dz = end[0] - start[0], end[1] - start[1]
    length = part * scale1 / scale * float(np.sqrt(dx * dx + dz * dz))
    return Wall(
        region, *(np.broadcast_to(a, up.shape) for a in (length, up, camera.focal / scale, scale))
    )


def paint_house(canvas: Canvas, wall: Wall | None, dice: Dice, lit: bool, colour: Colour) -> None:
    """A facade with rows of windows; at night some of them are lit."""
    if wall is None:
        return
    texture = 0.93 + 0.1 * canvas.grain[wall.region.rows, wall.region.cols]
    canvas.paint(wall.region, texture[..., None] * np.asarray(colour), BUILDING, wall.depth)
    pitch, storey = dice.between(2.2, 3.6), dice.between(2.8, 3.6)
    column, row = np.floor(wall.length / pitch), np.floor(wall.up / storey)
    u, v = wall.length / pitch - column, wall.up / storey - row
    side, sill = dice.between(0.16, 0.3), dice.between(0.2, 0.35)
    window = (u > side) & (u < 1 - side) & (v > sill) & (v < 0.82) & (wall.scale > 2.2)
    glass = dice.jitter(GLASS if dice.chance(0.7) else (150, 175, 200), 15)
    canvas.paint(wall.region.where(window), glass, None, 0)
    if lit:
        code = column * 7 + row * 13 + dice.whole(0, 9)
        bright = window & (code - np.floor(code / 5) * 5 < 2)
        canvas.paint(wall.region.where(bright), (255, 225, 150), None, 0)
    if dice.chance(0.4):
        canvas.shade(wall.region.where(v < 0.07), 0.78)


def paint_fence(canvas: Canvas, wall: Wall | None, dice: Dice) -> None:
    """Boards with dark gaps and a rail."""
    if wall is None:
        return
    red, green, blue = dice.jitter(dice.pick(PAINTS[2:4] + PAINTS[6:8] + PAINTS[9:10] * 4), 18)
    board = dice.between(0.28, 0.5)
    number = np.floor(wall.length / board)
    inside = wall.length / board - number
    shade = 0.9 + 0.06 * (number - np.floor(number / 3) * 3)
    shade = (
        shade
        - 0.45 * ((inside < 0.22) & (wall.scale > 4))
        + 0.1 * ((wall.up > 1.0) & (wall.up < 1.2))
    )
    canvas.paint(wall.region, shade[..., None] * np.asarray((red, green, blue)), FENCE, wall.depth)


def paint_hedge(canvas: Canvas, wall: Wall | None, height: float, leaf: Colour) -> None:
    """A wall of leaves with a ragged top: a hedge, or a row of trees."""
    if wall is None:
        return
    soft = canvas.soft[wall.region.rows, wall.region.cols]
    grain = canvas.grain[wall.region.rows, wall.region.cols]
    region = wall.region.where(wall.up < height * (0.72 + 0.28 * soft))
    share = 0.5 * soft + 0.35 * grain + 0.15 * np.minimum(1.0, wall.up / height)
    dark, light = tuple(0.5 * c for c in leaf), tuple(1.3 * c for c in leaf)
    canvas.paint(
        region,
        mix((dark[0], dark[1], dark[2]), (light[0], light[1], light[2]), share),
        VEGETATION,
        wall.depth,
    )


def paint_roof(
    canvas: Canvas, camera: Camera, start: Spot, end: Spot, height: float, dice: Dice
) -> None:
    """A pitched roof over a wall that faces the camera."""
    (x0, y0), (x1, y1) = camera.project(*start, height), camera.project(*end, height)
    rise = dice.between(1.5, 3.0) * camera.scale(start[1])
    inset = dice.between(0.1, 0.5) * (x1 - x0)
    region = canvas.polygon([(x0, y0), (x1, y1), (x1 - inset, y1 - rise), (x0 + inset, y0 - rise)])
    tiles = dice.jitter(dice.pick(((150, 75, 60), (90, 85, 85), (120, 95, 80))), 15)
    canvas.paint(region, tiles, BUILDING, start[1])
