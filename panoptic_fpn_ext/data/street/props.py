"""Where people, vehicles, signs and trees stand in the synthetic street, and in what size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .camera import Camera
from .canvas import Canvas, Dice
from .categories import BUS, CAR, PERSON, SIGN, VEGETATION
from .ground import Layout
from .light import Light
from .objects import (
    LEAVES,
    Frame,
    draw_board,
    draw_bus_end,
    draw_bus_side,
    draw_car_end,
    draw_car_side,
    draw_person,
    draw_pole,
    draw_sign,
    draw_tree,
)

Box = tuple[float, float, float, float]  # left, top, right, bottom in px


@dataclass(frozen=True)
class Kind:
    """How an object looks and how large it is.

    Attributes:
        category: its category id, 0 for unlabelled.
        draw: paints it.
        height, width: metres.
        share: smallest and largest height in parts of the image's height.
        up: metres between it and the ground, bridged by a pole.
    """

    category: int
    draw: Callable[[Frame, Dice], None]
    height: float
    width: float
    share: tuple[float, float]
    up: float = 0.0


_PERSON = Kind(PERSON, draw_person, 1.75, 0.8, (0.18, 0.65))
_CAR_END = Kind(CAR, draw_car_end, 1.5, 1.8, (0.1, 0.5))
_CAR_SIDE = Kind(CAR, draw_car_side, 1.5, 4.3, (0.1, 0.4))
_BUS_END = Kind(BUS, draw_bus_end, 3.1, 2.6, (0.2, 0.75))
_BUS_SIDE = Kind(BUS, draw_bus_side, 3.1, 8.0, (0.18, 0.5))
_SIGN = Kind(SIGN, draw_sign, 1.05, 1.05, (0.1, 0.32), up=2.0)


@dataclass
class Prop:
    """An object of the scene before it is drawn: farther props are drawn first."""

    ahead: float
    boxes: list[Box]
    category: int
    draw: Callable[[Frame, Dice], None]
    pole: Box | None = None
    iscrowd: bool = False

    def paint(self, canvas: Canvas, segment: int, light: Light, dice: Dice) -> None:
        """Draw the prop with its shadow and its pole; poles are unlabelled."""
        for left, top, right, bottom in self.boxes:
            if self.pole is None:
                middle, flat = (left + right) / 2, 0.06 * (bottom - top)
                spot = canvas.ellipse(middle, bottom - flat / 2, 0.56 * (right - left), flat + 0.5)
                canvas.shade(spot, light.shadow * 0.8)
            else:
                draw_pole(Frame(canvas, self.pole, 0, self.ahead))
            box = (left, top, right, bottom)
            self.draw(Frame(canvas, box, segment, self.ahead, dice.chance(0.5), light.lamps), dice)


def throw_things(dice: Dice, camera: Camera, layout: Layout) -> list[Prop]:
    """Two to seven things, and now and then a crowd; none covers more than 0.4 of another."""
    placed: list[Prop] = []
    if dice.chance(0.15):
        placed += [crowd for crowd in [_throw_crowd(dice, camera, layout)] if crowd]
    wanted = len(placed) + dice.whole(2, 7)
    for _ in range(60):
        if len(placed) >= wanted:
            break
        prop = _throw_thing(dice, camera, layout)
        if prop and all(_overlap(prop.boxes[0], box) < 0.4 for other in placed for box in other.boxes):
            placed.append(prop)
    return placed


def throw_scenery(dice: Dice, camera: Camera, layout: Layout) -> list[Prop]:
    """Trees, and the unlabelled furniture of a street: lamp posts and billboards."""
    props = []
    for side in (0, 1):
        low, high = {"town": (-2, 2), "suburb": (0, 3), "park": (1, 4), "open": (-1, 3)}[layout.districts[side]]
        for _ in range(max(0, dice.whole(low, high))):
            props.append(_throw_tree(dice, camera, layout, side))
    if dice.chance(0.35):
        lamp_post = Kind(0, lambda f, _: draw_pole(f), dice.between(4.0, 6.0), 0.14, (0.1, 1.2))
        props.append(_throw_upright(dice, camera, layout, lamp_post))
    if dice.chance(0.15):
        board = Kind(0, draw_board, dice.between(2.2, 3.0), 4.2, (0.1, 1.2), up=2.2)
        props.append(_throw_upright(dice, camera, layout, board))
    return [p for p in props if p]


def _throw_thing(dice: Dice, camera: Camera, layout: Layout) -> Prop | None:
    kind = _throw_kind(dice, layout.crossing)
    across, ahead = _throw_spot(dice, camera, layout, kind)
    return _stand(camera, kind, across, ahead, dice.between(0.92, 1.1))


def _throw_kind(dice: Dice, crossing: bool) -> Kind:
    """A kind of thing; most vehicles follow the road, so a crossing road shows their sides."""
    roll = dice.unit()
    side_view = crossing if dice.chance(0.8) else not crossing
    if roll < 0.34:
        return _PERSON
    if roll < 0.64:
        return _CAR_SIDE if side_view else _CAR_END
    if roll < 0.8:
        return _BUS_SIDE if side_view else _BUS_END
    return _SIGN


def _throw_spot(dice: Dice, camera: Camera, layout: Layout, kind: Kind) -> tuple[float, float]:
    """World position: vehicles on the road, signs beside it, people anywhere on the street."""
    off = _throw_offset(dice, layout, kind)
    if layout.crossing:
        ahead = max(2.0, layout.centre + off)
        column = dice.between(0.0, 1.0) * camera.width
        return (column - camera.vanish) / camera.scale(ahead), ahead
    low, high = kind.share
    share = low + (high - low) * dice.unit() * dice.between(0.4, 1.0)
    return layout.centre + off, camera.focal * kind.height / (share * camera.height)


def _throw_offset(dice: Dice, layout: Layout, kind: Kind) -> float:
    """Metres from the middle of the road."""
    sign = -1 if dice.chance(0.5) else 1
    beside = layout.half + max(1.2, layout.walks[sign > 0])
    if kind is _SIGN:
        return sign * dice.between(layout.half + 0.5, beside)
    if kind is _PERSON:
        return sign * (dice.between(layout.half + 0.3, beside) if dice.chance(0.65) else dice.between(0, beside))
    return sign * dice.between(0.25, 0.8) * layout.half


def _stand(camera: Camera, kind: Kind, across: float, ahead: float, stretch: float) -> Prop | None:
    """The prop at a world position; None if too small, too large or mostly out of the image."""
    scale = camera.scale(ahead)
    height, width = kind.height * scale * stretch, kind.width * scale * stretch
    x, ground = camera.project(across, ahead)
    bottom = ground - kind.up * scale
    box = (x - width / 2, bottom - height, x + width / 2, bottom)
    low, high = kind.share
    if not low * 0.95 <= height / camera.height <= high * 1.1 or _visible_part(camera, box) < 0.45:
        return None
    thick = max(0.6, 0.04 * scale)
    pole = (x - thick, bottom - height / 2, x + thick, ground) if kind.up else None
    return Prop(ahead, [box], kind.category, kind.draw, pole)


def _throw_crowd(dice: Dice, camera: Camera, layout: Layout) -> Prop | None:
    """Six to nine people close together, far enough away that nobody could tell them apart."""
    across, ahead = _throw_spot(dice, camera, layout, _PERSON)
    ahead = max(ahead, camera.focal * 1.75 / (0.4 * camera.height))
    members = []
    for i in range(dice.whole(6, 9)):
        spot = across + (i - 4) * 0.42 + dice.between(-0.15, 0.15), ahead + dice.between(-0.4, 0.4)
        member = _stand(camera, _PERSON, *spot, dice.between(0.88, 1.06))
        members += [member] if member else []
    if len(members) < 5:
        return None
    members.sort(key=lambda m: -m.ahead)
    return Prop(ahead, [m.boxes[0] for m in members], PERSON, draw_person, iscrowd=True)


def _throw_tree(dice: Dice, camera: Camera, layout: Layout, side: int) -> Prop | None:
    leaf = dice.jitter(dice.pick(LEAVES), 14)
    sign = 1 if side else -1
    off = sign * (layout.half + layout.walks[side] + dice.between(-0.4, 0.4 + 2 * layout.margins[side]))
    height = dice.between(3.5, 8.0)
    width = height * dice.between(0.6, 0.95)
    kind = Kind(VEGETATION, lambda f, d: draw_tree(f, d, leaf), height, width, (0.12, 1.3))
    if layout.crossing:
        ahead = layout.centre + off
        across = dice.between(-0.1, 1.1) * camera.width - camera.vanish
        return _stand(camera, kind, across / camera.scale(ahead), ahead, 1.0) if ahead > 4 else None
    return _stand(camera, kind, layout.centre + off, dice.between(7, 40), 1.0)


def _throw_upright(dice: Dice, camera: Camera, layout: Layout, kind: Kind) -> Prop | None:
    """Unlabelled street furniture beside the road."""
    off = layout.half + 0.6 + dice.unit()
    ahead = layout.centre + off if layout.crossing else dice.between(6, 25)
    across = dice.between(-4, 4) if layout.crossing else layout.centre + (off if dice.chance(0.5) else -off)
    return _stand(camera, kind, across, ahead, 1.0)


def _visible_part(camera: Camera, box: Box) -> float:
    """Share of a box that lies in the image."""
    left, top, right, bottom = box
    seen_x = min(right, camera.width) - max(left, 0.0)
    seen_y = min(bottom, camera.height) - max(top, 0.0)
    return max(0.0, seen_x) * max(0.0, seen_y) / ((right - left) * (bottom - top))


def _overlap(first: Box, second: Box) -> float:
    """Area of the intersection over the smaller area."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    tall = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return max(0.0, wide) * max(0.0, tall) / smaller
