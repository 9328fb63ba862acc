"""The plan of the synthetic street, and the painting of its ground and sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .canvas import Canvas, Colour, Dice, Region, mix
from .categories import ROAD, SIDEWALK, SKY, TERRAIN
from .light import Light

GRASS: tuple[Colour, ...] = ((95, 130, 60), (130, 140, 70), (150, 125, 85), (110, 115, 75))
PAVING: tuple[Colour, ...] = ((150, 150, 150), (178, 168, 155), (165, 140, 128), (128, 128, 132))
ASPHALT: tuple[Colour, ...] = ((88, 88, 92), (108, 106, 104), (70, 72, 76), (120, 112, 104))


@dataclass(frozen=True)
class Layout:
    """The plan of a street. Lengths are in metres; pairs are (left or near side, right or far side).

    Attributes:
        crossing: does the road run from left to right before the camera? Otherwise it leads ahead.
        centre: world coordinate of its middle line: ``ahead`` if crossing, else ``across``.
        half: half its width.
        walks: widths of the sidewalks, 0 for none.
        grounds: categories of the ground beyond them.
        districts: what is built there: town, suburb, park or open.
        margins: how far from the sidewalk that begins.
    """

    crossing: bool
    centre: float
    half: float
    walks: tuple[float, float]
    grounds: tuple[int, int]
    districts: tuple[str, str]
    margins: tuple[float, float]

    def edge(self, side: int) -> float:
        """World coordinate where side 0 (left, near) or 1 (right, far) begins to be built up."""
        reach = self.half + self.walks[side] + self.margins[side]
        return self.centre + (reach if side else -reach)


def throw_layout(dice: Dice) -> Layout:
    """A random plan."""
    crossing = dice.chance(0.3)
    half = dice.between(2.8, 5.5)
    walks = [dice.between(1.6, 4.0) if dice.chance(0.75) else 0.0 for _ in range(2)]
    districts = [dice.pick(("town", "town", "suburb", "park", "open")) for _ in range(2)]
    margins = [_MARGIN[d] * dice.between(0.3, 1.0) for d in districts]
    grounds = [SIDEWALK if d == "town" and w > 0 else TERRAIN for d, w in zip(districts, walks, strict=True)]
    ahead, aside = half + dice.between(2.5, 9.0), dice.between(-1, 1) * (half + 0.6 * min(walks))
    centre = ahead if crossing else aside
    return Layout(
        crossing, centre, half, (walks[0], walks[1]), (grounds[0], grounds[1]),
        (districts[0], districts[1]), (margins[0], margins[1]),
    )  # fmt: skip


_MARGIN = {"town": 1.0, "suburb": 2.5, "park": 9.0, "open": 12.0}


def paint_sky(canvas: Canvas, camera: Camera, light: Light, dice: Dice) -> None:
    """Sky over the whole canvas: a gradient and clouds."""
    rows = (np.arange(canvas.height) + 0.5) / max(1.0, camera.horizon)
    share = np.broadcast_to(np.minimum(1.0, rows)[:, None], (canvas.height, canvas.width))
    gain = tuple(max(0.3, g) for g in light.gain)
    colour = mix(light.zenith, light.skyline, share)
    cloud = canvas.noise.soft_map(canvas.height, canvas.width, max(4, canvas.height // 6))
    cover = np.clip(2.2 * (0.7 * cloud + 0.3 * canvas.soft) - dice.between(0.8, 1.6), 0, 1)[..., None]
    colour = colour + (np.asarray(light.skyline) * 1.06 - colour) * cover * 0.8
    canvas.paint(_everything(canvas), colour / np.asarray(gain), SKY, 1.0)


def paint_ground(canvas: Canvas, camera: Camera, layout: Layout, dice: Dice) -> None:
    """Road with its markings, sidewalks and the ground beyond them."""
    is_ground, across, ahead = camera.ground()
    along, off = (across, ahead - layout.centre) if layout.crossing else (ahead, across - layout.centre)
    whole = _everything(canvas).where(is_ground)
    sides = ((0, off < 0), (1, off >= 0))
    for side, here in sides:
        painter = _paint_walk if layout.grounds[side] == SIDEWALK else _paint_terrain
        painter(canvas, whole.where(here), along, off, ahead, dice)
    for side, here in sides:
        strip = here & (np.abs(off) < layout.half + layout.walks[side])
        _paint_walk(canvas, whole.where(strip), along, off, ahead, dice)
    road = whole.where(np.abs(off) < layout.half)
    _paint_road(canvas, road, ahead, dice)
    _paint_marks(canvas, road, along, off, layout, dice)
    kerb = np.abs(np.abs(off) - layout.half) < 0.12
    canvas.paint(whole.where(kerb), dice.jitter((185, 185, 182), 15), None, 0)


def cast_shadows(canvas: Canvas, camera: Camera, layout: Layout, light: Light, dice: Dice) -> None:
    """Darken one side of the street, as a row of houses would, or leave it in the light."""
    if light.shadow > 0.7 or dice.chance(0.4):
        return
    is_ground, across, ahead = camera.ground()
    off = ahead - layout.centre if layout.crossing else across - layout.centre
    border = dice.between(-layout.half, layout.half)
    dark = off > border if dice.chance(0.5) else off < border
    canvas.shade(_everything(canvas).where(is_ground & dark), light.shadow)


def _everything(canvas: Canvas) -> Region:
    return canvas.box(0, 0, canvas.width, canvas.height)


def _paint_road(canvas: Canvas, region: Region, ahead: np.ndarray, dice: Dice) -> None:
    red, green, blue = dice.jitter(dice.pick(ASPHALT), 14)
    texture = 0.86 + 0.16 * canvas.soft + 0.12 * canvas.grain
    canvas.paint(region, texture[..., None] * np.asarray((red, green, blue)), ROAD, ahead)


def _paint_walk(
    canvas: Canvas,
    region: Region,
    along: np.ndarray,
    off: np.ndarray,
    ahead: np.ndarray,
    dice: Dice,
) -> None:
    """Paving stones with joints; far away the joints blur into the stones."""
    slab = dice.between(0.7, 1.3)
    joint = (_within(along, slab) < 0.09) | (_within(off, slab) < 0.07)
    texture = 0.92 + 0.12 * canvas.grain - 0.22 * (joint & (ahead < 14))
    colour = np.asarray(dice.jitter(dice.pick(PAVING), 14))
    canvas.paint(region, texture[..., None] * colour, SIDEWALK, ahead)


def _paint_terrain(
    canvas: Canvas,
    region: Region,
    along: np.ndarray,
    off: np.ndarray,
    ahead: np.ndarray,
    dice: Dice,
) -> None:
    """Grass or bare earth: patches and blades."""
    red, green, blue = dice.jitter(dice.pick(GRASS), 16)
    share = 0.5 * canvas.soft + 0.5 * canvas.grain
    colour = mix((red * 0.75, green * 0.75, blue * 0.75), (red * 1.2, green * 1.2, blue * 1.1), share)
    canvas.paint(region, colour, TERRAIN, ahead)


def _paint_marks(canvas: Canvas, road: Region, along: np.ndarray, off: np.ndarray, layout: Layout, dice: Dice) -> None:
    """Lane markings and, now and then, a zebra crossing; they belong to the road."""
    white = dice.jitter((222, 222, 215), 12)
    if dice.chance(0.75):
        dashed = _within(along, 6.0) < 3.0 if dice.chance(0.7) else True
        canvas.paint(road.where((np.abs(off) < 0.11) & dashed), white, None, 0)
    if dice.chance(0.4):
        border = np.abs(np.abs(off) - layout.half + 0.4) < 0.08
        canvas.paint(road.where(border), white, None, 0)
    if dice.chance(0.35):
        start = dice.between(5, 14) if not layout.crossing else dice.between(-6, 4)
        stripes = (along > start) & (along < start + 3) & (_within(off, 1.1) < 0.55)
        canvas.paint(road.where(stripes), white, None, 0)


def _within(value: np.ndarray, period: float) -> np.ndarray:
    """Position inside a repeating pattern, in [0, period)."""
    return value - np.floor(value / period) * period
