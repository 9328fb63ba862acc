"""What stands on the synthetic street: people, cars, buses, signs, trees, posts and boards.

Each ``draw_*`` function paints one object into a ``Frame`` with a given segment number. Parts are
placed in frame units: (0, 0) is the top left corner of the object's box, (1, 1) the bottom right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Dice, Point, Region, mix
from .categories import VEGETATION

# Shared by vehicles, clothes, signs, fences and houses: a colour alone names no category.
PAINTS: tuple[Colour, ...] = (
    (190, 40, 40), (45, 80, 170), (235, 235, 232), (120, 124, 130), (48, 50, 56), (225, 185, 50),
    (60, 125, 70), (205, 185, 150), (50, 135, 145), (140, 95, 65), (205, 110, 50), (130, 60, 110),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = (
    (70, 110, 50), (95, 130, 55), (50, 85, 50), (150, 115, 50), (120, 125, 60),
)  # fmt: skip
GLASS, DARK, METAL = (70.0, 90.0, 110.0), (28.0, 28.0, 30.0), (150.0, 150.0, 152.0)
SKINS: tuple[Colour, ...] = ((235, 195, 165), (205, 155, 120), (150, 100, 70), (95, 65, 50))


@dataclass
class Frame:
    """A box on a canvas, (left, top, right, bottom) in px, and the segment painted into it."""

    canvas: Canvas
    box: tuple[float, float, float, float]
    segment: int
    depth: float
    flip: bool = False
    lit: bool = False

    def _at(self, point: Point) -> Point:
        left, top, right, bottom = self.box
        u = 1 - point[0] if self.flip else point[0]
        return left + u * (right - left), top + point[1] * (bottom - top)

    def _put(self, region: Region, colour: Colour, shaded: bool) -> None:
        light = 1.12 - 0.26 * (region.y - self.box[1]) / (self.box[3] - self.box[1]) if shaded else 1.0
        paint = np.asarray(colour) * np.broadcast_to(light, region.mask.shape)[..., None]
        self.canvas.paint(region, paint, self.segment, self.depth)

    def polygon(self, points: Sequence[Point], colour: Colour, shaded: bool = True) -> None:
        """Paint a convex polygon."""
        self._put(self.canvas.polygon([self._at(p) for p in points]), colour, shaded)

    def rect(self, u0: float, v0: float, u1: float, v1: float, colour: Colour, shaded: bool = True) -> None:
        """Paint the rectangle between two corners."""
        (x0, y0), (x1, y1) = self._at((u0, v0)), self._at((u1, v1))
        self._put(self.canvas.box(min(x0, x1), y0, max(x0, x1), y1), colour, shaded)

    def ellipse(self, u: float, v: float, ru: float, rv: float, colour: Colour, shaded: bool = True) -> None:
        """Paint an ellipse around (u, v) with half axes ru, rv."""
        (x, y), left, top, right, bottom = self._at((u, v)), *self.box
        self._put(self.canvas.ellipse(x, y, ru * (right - left), rv * (bottom - top)), colour, shaded)

    def leaves(self, u: float, v: float, ru: float, rv: float, colour: Colour) -> None:
        """Paint a ragged ball of leaves around (u, v) with half axes ru, rv."""
        (x, y), left, top, right, bottom = self._at((u, v)), *self.box
        wide, high = ru * (right - left), rv * (bottom - top)
        region = self.canvas.ellipse(x, y, wide, high, ragged=0.3)
        light = np.broadcast_to((bottom - region.y) / (bottom - top), region.mask.shape)
        paint_leaves(self.canvas, region, colour, self.depth, light)


def draw_car_side(frame: Frame, dice: Dice) -> None:
    """A car seen from its side; about 4.3 m by 1.5 m."""
    paint = dice.jitter(dice.pick(PAINTS), 18)
    roof = dice.between(0.66, 0.9)
    frame.polygon([(0.17, 0.46), (0.32, 0.03), (roof - 0.12, 0.03), (roof, 0.46)], paint)
    frame.polygon([(0, 0.56), (0.05, 0.42), (0.95, 0.42), (1, 0.56), (1, 0.86), (0, 0.86)], paint)
    middle = roof / 2 + 0.09
    frame.polygon([(0.23, 0.42), (0.34, 0.11), (middle - 0.015, 0.11), (middle - 0.015, 0.42)], GLASS)
    frame.polygon(
        [(middle + 0.015, 0.42), (middle + 0.015, 0.11), (roof - 0.14, 0.11), (roof - 0.05, 0.42)],
        GLASS,
    )
    frame.rect(0, 0.5, 0.05, 0.6, (255, 240, 190) if frame.lit else (225, 225, 210), shaded=False)
    frame.rect(0.96, 0.5, 1, 0.62, (220, 40, 30), shaded=False)
    for u in (0.2, 0.79):
        frame.ellipse(u, 0.81, 0.075, 0.19, DARK)
        frame.ellipse(u, 0.81, 0.035, 0.09, METAL)


def draw_car_end(frame: Frame, dice: Dice) -> None:
    """A car seen from the front or from behind; about 1.8 m by 1.5 m."""
    paint = dice.jitter(dice.pick(PAINTS), 18)
    front = dice.chance(0.5)
    frame.rect(0.04, 0.8, 0.22, 1, DARK)
    frame.rect(0.78, 0.8, 0.96, 1, DARK)
    frame.polygon([(0.1, 0.46), (0.22, 0.02), (0.78, 0.02), (0.9, 0.46)], paint)
    frame.polygon([(0, 0.54), (0.07, 0.4), (0.93, 0.4), (1, 0.54), (1, 0.88), (0, 0.88)], paint)
    frame.polygon([(0.16, 0.42), (0.26, 0.1), (0.74, 0.1), (0.84, 0.42)], GLASS)
    lamp = ((255, 245, 200) if frame.lit else (230, 230, 220)) if front else (215, 35, 30)
    for u in (0.13, 0.87):
        frame.ellipse(u, 0.57, 0.1, 0.07, lamp, shaded=False)
    if front:
        frame.rect(0.3, 0.54, 0.7, 0.66, DARK)
    frame.rect(0.38, 0.72, 0.62, 0.8, (225, 225, 225))


def draw_bus_side(frame: Frame, dice: Dice) -> None:
    """A bus seen from its side; about 8.5 m by 3 m."""
    paint, band = dice.jitter(dice.pick(PAINTS), 18), dice.jitter(dice.pick(PAINTS), 18)
    frame.polygon([(0.01, 0), (0.99, 0), (1, 0.05), (1, 0.92), (0, 0.92), (0, 0.05)], paint)
    frame.rect(0, 0.6, 1, 0.7, band)
    count = dice.whole(5, 7)
    for i in range(count):
        glass = (235, 215, 150) if frame.lit and dice.chance(0.7) else GLASS
        frame.rect((i + 0.12) / count, 0.16, (i + 0.9) / count, 0.5, glass)
    door = dice.pick((0.06, 0.5))
    frame.rect(door, 0.2, door + 0.09, 0.88, (90, 105, 120))
    for u in (0.2, 0.8):
        frame.ellipse(u, 0.87, 0.055, 0.13, DARK)
        frame.ellipse(u, 0.87, 0.025, 0.06, METAL)


def draw_bus_end(frame: Frame, dice: Dice) -> None:
    """A bus seen from the front or from behind; about 2.5 m by 3 m."""
    paint = dice.jitter(dice.pick(PAINTS), 18)
    front = dice.chance(0.6)
    frame.rect(0.06, 0.85, 0.24, 1, DARK)
    frame.rect(0.76, 0.85, 0.94, 1, DARK)
    frame.polygon([(0.04, 0), (0.96, 0), (1, 0.06), (1, 0.92), (0, 0.92), (0, 0.06)], paint)
    frame.rect(0.2, 0.03, 0.8, 0.11, DARK)
    frame.rect(0.3, 0.05, 0.65, 0.09, (250, 170, 50), shaded=False)
    bottom = 0.56 if front else 0.42
    frame.rect(0.07, 0.15, 0.93, bottom, (235, 215, 150) if frame.lit and dice.chance(0.5) else GLASS)
    frame.rect(0.485, 0.15, 0.515, bottom, paint)
    lamp = ((255, 245, 200) if frame.lit else (230, 230, 220)) if front else (215, 35, 30)
    for u in (0.14, 0.86):
        frame.ellipse(u, 0.78, 0.08, 0.045, lamp, shaded=False)
    frame.rect(0.38, 0.74, 0.62, 0.8, (225, 225, 225) if front else DARK)


def draw_person(frame: Frame, dice: Dice) -> None:
    """A standing or walking person; about 0.75 m by 1.75 m."""
    top, trousers = dice.jitter(dice.pick(PAINTS), 20), dice.jitter(dice.pick(PAINTS), 20)
    skin, hair = dice.pick(SKINS), dice.jitter((60, 45, 35), 30)
    step, swing = dice.between(0.02, 0.3), dice.between(0.0, 0.2)
    for side in (-1, 1):
        foot = 0.5 + side * (0.12 + step / 2)
        knee = 0.5 + side * 0.11
        frame.polygon(
            [(knee - 0.13, 0.5), (knee + 0.13, 0.5), (foot + 0.1, 0.95), (foot - 0.1, 0.95)],
            trousers,
        )
        frame.rect(foot - 0.12, 0.94, foot + 0.12, 1, DARK)
    for side in (-1, 1):
        hand = 0.5 + side * (0.3 + swing)
        shoulder = 0.5 + side * 0.24
        frame.polygon(
            [
                (shoulder - 0.08, 0.2),
                (shoulder + 0.08, 0.2),
                (hand + 0.06, 0.5),
                (hand - 0.06, 0.5),
            ],
            top,
        )
        frame.ellipse(hand, 0.51, 0.07, 0.025, skin)
    frame.polygon([(0.24, 0.2), (0.34, 0.165), (0.66, 0.165), (0.76, 0.2), (0.7, 0.55), (0.3, 0.55)], top)
    frame.ellipse(0.5, 0.085, 0.17, 0.085, hair)
    frame.ellipse(0.5, 0.1, 0.14, 0.065, skin)


# Shape -> the height of its middle, and its corners.
_PLATES: dict[str, tuple[float, list[Point]]] = {
    "triangle": (0.63, [(0.5, 0), (1, 0.95), (0, 0.95)]),
    "yield": (0.37, [(0, 0.05), (1, 0.05), (0.5, 1)]),
    "square": (0.5, [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]),
    "diamond": (0.5, [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]),
    "octagon": (
        0.5,
        [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)],
    ),
}


def draw_sign(frame: Frame, dice: Dice) -> None:
    """The plate of a traffic sign: rim, face and a mark; about 1 m by 1 m."""
    shape = dice.pick((*_PLATES, "circle", "circle"))
    rim = dice.jitter(dice.pick(PAINTS[:2] + PAINTS[5:7]), 12)
    face = (238, 238, 235) if dice.chance(0.65) else dice.jitter(dice.pick(PAINTS[:2] + PAINTS[5:6]), 12)
    if shape == "circle":
        frame.ellipse(0.5, 0.5, 0.5, 0.5, rim, shaded=False)
        frame.ellipse(0.5, 0.5, 0.35, 0.35, face, shaded=False)
    else:
        middle, corners = _PLATES[shape]
        frame.polygon(corners, rim, shaded=False)
        inner = [(0.5 + 0.66 * (u - 0.5), middle + 0.66 * (v - middle)) for u, v in corners]
        frame.polygon(inner, face, shaded=False)
    frame.rect(*dice.pick(((0.36, 0.45, 0.64, 0.57), (0.44, 0.34, 0.56, 0.68))), DARK, shaded=False)


def draw_pole(frame: Frame) -> None:
    """A metal pole that fills the frame; unlabelled if the frame's segment is 0."""
    frame.rect(0, 0, 1, 1, METAL)


def draw_board(frame: Frame, dice: Dice) -> None:
    """A billboard with some image on it."""
    frame.rect(0, 0, 1, 1, DARK)
    frame.rect(0.03, 0.05, 0.97, 0.95, dice.jitter(dice.pick(PAINTS), 30))
    for _ in range(3):
        u, v = dice.between(0.2, 0.8), dice.between(0.3, 0.7)
        frame.ellipse(
            u,
            v,
            dice.between(0.05, 0.18),
            dice.between(0.1, 0.22),
            dice.jitter(dice.pick(PAINTS), 30),
        )


def draw_tree(frame: Frame, dice: Dice, leaf: Colour) -> None:
    """A tree: trunk, and a crown of ragged blobs."""
    trunk = [(0.45, 0.5), (0.55, 0.5), (0.57, 1.0), (0.43, 1.0)]
    frame.polygon(trunk, dice.jitter((90, 70, 50), 12))
    frame.leaves(0.5, 0.34, 0.42, 0.3, leaf)
    for _ in range(4):
        frame.leaves(dice.between(0.25, 0.75), dice.between(0.2, 0.52), 0.24, 0.17, leaf)


def paint_leaves(canvas: Canvas, region: Region, leaf: Colour, depth: float | np.ndarray, light: np.ndarray) -> None:
    """Cover a region with vegetation: leaves in shades of a colour, brighter where ``light`` is.

    ``light`` (h, w) or a number is in [0, 1].
    """
    soft = canvas.soft[region.rows, region.cols]
    grain = canvas.grain[region.rows, region.cols]
    red, green, blue = leaf
    dark, bright = (red * 0.5, green * 0.5, blue * 0.5), (red * 1.3, green * 1.3, blue * 1.3)
    share = 0.5 * soft + 0.35 * grain + 0.15 * light
    canvas.paint(region, mix(dark, bright, share), VEGETATION, depth)
