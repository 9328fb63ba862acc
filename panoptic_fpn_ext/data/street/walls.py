"""Upright surfaces beside the synthetic street: houses, fences, hedges and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .canvas import Canvas, Colour, Dice, Region
from .categories import BUILDING, FENCE
from .objects import GLASS, LEAVES, PAINTS, paint_leaves

HOUSES: tuple[Colour, ...] = PAINTS[2:5] + PAINTS[7:8] + (
    (170, 95, 75), (200, 180, 160), (150, 150, 155), (215, 195, 140), (130, 110, 100),
    (165, 185, 195), (190, 140, 120),
)  # fmt: skip
_BOARDS = PAINTS[2:4] + PAINTS[6:8] + PAINTS[9:10] * 4
_TILES: tuple[Colour, ...] = ((150, 75, 60), (90, 85, 85), (120, 95, 80))
Spot = tuple[float, float]  # (across, ahead) in metres


@dataclass(frozen=True)
class Wall:
    """A wall as the camera sees it; all but ``region`` are float64 (h, w).

    Attributes:
        region: its pixels.
        length, up, depth: metres from its left end, over the ground, from the camera.
        scale: px per metre.
    """

    region: Region
    length: np.ndarray
    up: np.ndarray
    depth: np.ndarray
    scale: np.ndarray


def stand_wall(canvas: Canvas, camera: Camera, start: Spot, end: Spot, height: float) -> Wall | None:
    """A wall from one ground point to another; None if it is out of sight or seen edge-on."""
    if camera.project(*start)[0] > camera.project(*end)[0]:
        start, end = end, start
    (x0, y0), (x1, y1) = camera.project(*start), camera.project(*end)
    scale0, scale1 = camera.scale(start[1]), camera.scale(end[1])
    if x1 - x0 < 1 or x1 < 0 or x0 > canvas.width:
        return None
    top0, top1 = y0 - height * scale0, y1 - height * scale1
    region = canvas.polygon([(x0, y0), (x1, y1), (x1, top1), (x0, top0)])
    part = (region.x - x0) / (x1 - x0)
    scale = scale0 + part * (scale1 - scale0)
    up = (y0 + part * (y1 - y0) - region.y) / scale
    dx, dz = end[0] - start[0], end[1] - start[1]
    # Seen in perspective, equal steps on the image are not equal steps along the wall.
    length = part * scale1 / scale * float(np.sqrt(dx * dx + dz * dz))
    fields = (length, up, camera.focal / scale, scale)
    return Wall(region, *(np.broadcast_to(f, up.shape) for f in fields))


@dataclass(frozen=True)
class Builder:
    """Puts up walls on a canvas; at night (``lamps``) with lit windows."""

    canvas: Canvas
    camera: Camera
    lamps: bool
    dice: Dice

    def house(self, start: Spot, end: Spot, height: float, colour: Colour) -> bool:
        """A facade with rows of windows; False if it is out of sight."""
        wall = stand_wall(self.canvas, self.camera, start, end, height)
        if wall is None:
            return False
        texture = 0.93 + 0.1 * self.canvas.grain[wall.region.rows, wall.region.cols]
        plaster = texture[..., None] * np.asarray(colour)
        self.canvas.paint(wall.region, plaster, BUILDING, wall.depth)
        self._windows(wall)
        return True

    def _windows(self, wall: Wall) -> None:
        dice = self.dice
        pitch, storey = dice.between(2.2, 3.6), dice.between(2.8, 3.6)
        column, row = np.floor(wall.length / pitch), np.floor(wall.up / storey)
        u, v = wall.length / pitch - column, wall.up / storey - row
        side, sill = dice.between(0.16, 0.3), dice.between(0.2, 0.35)
        window = (u > side) & (u < 1 - side) & (v > sill) & (v < 0.82) & (wall.scale > 2.2)
        glass = dice.jitter(GLASS if dice.chance(0.7) else (150, 175, 200), 15)
        self.canvas.paint(wall.region.where(window), glass, None, 0)
        if self.lamps:
            code = column * 7 + row * 13 + dice.whole(0, 9)
            bright = window & (code - np.floor(code / 5) * 5 < 2)
            self.canvas.paint(wall.region.where(bright), (255, 225, 150), None, 0)
        if dice.chance(0.4):
            self.canvas.shade(wall.region.where(v < 0.07), 0.78)

    def roof(self, start: Spot, end: Spot, height: float) -> None:
        """A pitched roof over a wall that faces the camera, from its left to its right end."""
        (x0, y0), (x1, y1) = (self.camera.project(*spot, height) for spot in (start, end))
        rise = self.dice.between(1.5, 3.0) * self.camera.scale(start[1])
        inset = self.dice.between(0.1, 0.5) * (x1 - x0)
        corners = [(x0, y0), (x1, y1), (x1 - inset, y1 - rise), (x0 + inset, y0 - rise)]
        tiles = self.dice.jitter(self.dice.pick(_TILES), 15)
        self.canvas.paint(self.canvas.polygon(corners), tiles, BUILDING, start[1])

    def fence(self, start: Spot, end: Spot, height: float) -> None:
        """Boards with dark gaps and a rail."""
        wall = stand_wall(self.canvas, self.camera, start, end, height)
        if wall is None:
            return
        colour = np.asarray(self.dice.jitter(self.dice.pick(_BOARDS), 18))
        board = self.dice.between(0.28, 0.5)
        number = np.floor(wall.length / board)
        shade = 0.9 + 0.06 * (number - np.floor(number / 3) * 3)
        shade = shade - 0.45 * ((wall.length / board - number < 0.22) & (wall.scale > 4))
        shade = shade + 0.1 * ((wall.up > 1.0) & (wall.up < 1.2))
        self.canvas.paint(wall.region, shade[..., None] * colour, FENCE, wall.depth)

    def hedge(self, start: Spot, end: Spot, height: float) -> None:
        """A wall of leaves with a ragged top: a hedge, or a row of trees."""
        leaf = self.dice.jitter(self.dice.pick(LEAVES), 14)
        wall = stand_wall(self.canvas, self.camera, start, end, height)
        if wall is None:
            return
        soft = self.canvas.soft[wall.region.rows, wall.region.cols]
        region = wall.region.where(wall.up < height * (0.72 + 0.28 * soft))
        paint_leaves(self.canvas, region, leaf, wall.depth, np.minimum(1.0, wall.up / height))
