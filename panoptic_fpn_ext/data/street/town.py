"""What the synthetic street is lined with: houses, fences and hedges, near and far."""

from __future__ import annotations

from .canvas import Dice
from .ground import Layout
from .walls import HOUSES, Builder, Spot


def build_town(builder: Builder, layout: Layout) -> None:
    """Put up everything upright that does not move, far things first."""
    dice = builder.dice
    _close_view(builder, (-160.0, 160.0), 120.0, dice.pick(("hedge", "town", "none")))
    if layout.crossing:
        reach = builder.canvas.width / builder.camera.scale(layout.edge(1))
        _close_view(builder, (-reach, reach), layout.edge(1), layout.districts[1])
        return
    if dice.chance(0.4):
        middle, reach = dice.between(-8, 8), dice.between(8, 22)
        ahead, kind = dice.between(32, 70), dice.pick(("town", "town", "hedge"))
        _close_view(builder, (middle - reach, middle + reach), ahead, kind)
    for side in (0, 1):
        _line_side(builder, layout, side)


def _close_view(builder: Builder, span: Spot, ahead: float, kind: str) -> None:
    """Fill a stretch (from, to in metres) at a distance with what faces the camera there."""
    dice, start, end = builder.dice, (span[0], ahead), (span[1], ahead)
    if kind in ("hedge", "park"):
        builder.hedge(start, end, dice.between(4, 9) if ahead < 80 else dice.between(6, 16))
    if kind in ("town", "suburb"):
        _row_of_houses(builder, span, ahead, kind)
    if kind == "suburb" or (kind == "open" and dice.chance(0.5)):
        builder.fence(start, end, dice.between(1.5, 2.2))


def _row_of_houses(builder: Builder, span: Spot, ahead: float, kind: str) -> None:
    """Houses that face the camera; far ones are large blocks, those of a suburb stand back."""
    dice, (left, right) = builder.dice, span
    growth = 1.0 if ahead < 80 else 1.5
    ahead = ahead if kind == "town" else ahead + 4.0
    while left < right:
        wide = dice.between(7, 15) * (1 if growth == 1.0 else 2)
        height = dice.between(6, 16) * growth if kind == "town" else dice.between(3.2, 5.5)
        start, end = (left, ahead), (min(right, left + wide), ahead)
        if builder.house(start, end, height, _plaster(dice)) and kind == "suburb":
            builder.roof(start, end, height)
        left += wide + _gap(dice, kind, 0.5, 6)


def _line_side(builder: Builder, layout: Layout, side: int) -> None:
    """Build up one side of a street that leads ahead."""
    dice, district = builder.dice, layout.districts[side]
    outward = 1.0 if side else -1.0
    edge = outward * max(1.6, outward * layout.edge(side))
    if district in ("town", "suburb"):
        _line_houses(builder, edge, outward, district)
    if district == "park":
        height = dice.between(3, 8)
        builder.hedge((edge, dice.between(4, 15)), (edge, 90.0), height)
    if district == "suburb" or dice.chance(0.35):
        start, end = dice.between(1.5, 6.0), dice.between(20.0, 60.0)
        builder.fence((edge, start), (edge, end), dice.between(1.4, 2.2))


def _line_houses(builder: Builder, edge: float, outward: float, kind: str) -> None:
    """Houses along one side, from the far end to the camera."""
    dice = builder.dice
    line = edge + outward * (4.0 if kind == "suburb" else 0.0)
    back = line + outward * 10
    for near, far in reversed(_plots(dice, kind)):
        height = dice.between(6, 18) if kind == "town" else dice.between(3.2, 6)
        red, green, blue = _plaster(dice)
        front = (red * 0.88, green * 0.88, blue * 0.88)
        if builder.house((line, near), (back, near), height, front) and kind == "suburb":
            builder.roof((min(line, back), near), (max(line, back), near), height)
        builder.house((line, near), (line, far), height, (red, green, blue))


def _plots(dice: Dice, kind: str) -> list[Spot]:
    """Where the houses of one side begin and end, metres ahead."""
    start, plots = dice.between(2.0, 10.0), []
    while start < 90:
        end = start + dice.between(8, 18)
        plots.append((start, end))
        start = end + _gap(dice, kind, 1.5, 8)
    return plots


def _gap(dice: Dice, kind: str, low: float, high: float) -> float:
    """Metres between two houses; those of a town mostly stand wall to wall."""
    return dice.between(low, high) if dice.chance(0.35) or kind == "suburb" else 0.0


def _plaster(dice: Dice) -> tuple[float, float, float]:
    return dice.jitter(dice.pick(HOUSES), 16)
