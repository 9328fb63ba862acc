"""The drawing surface of the synthetic street: dice, shapes and paint.

Everything here gives the same bits on every machine. Random numbers come from the raw PCG64 stream,
which numpy promises never to change, and arithmetic is restricted to single IEEE operations
(``+ - * / floor sqrt``), so no vector library can round differently.

Shape letters: H, W image size in pixels; h, w size of a region inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
Point = tuple[float, float]
T = TypeVar("T")

SKY_DEPTH = 150.0  # metres; beyond every object, near enough for fog to leave some sky


class Dice:
    """Random draws from the raw stream of ``PCG64(seeds)``: equal seeds, equal draws, anywhere."""

    def __init__(self, *seeds: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seeds))

    def unit(self) -> float:
        """A float in [0, 1) with 53 random bits."""
        return (int(self._bits.random_raw()) >> 11) / 9007199254740992.0

    def between(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        return options[self.whole(0, len(options) - 1)]

    def jitter(self, colour: Colour, amount: float) -> Colour:
        """The colour, made brighter or darker by up to ``amount`` and tinted a little; 0..255."""
        common = self.between(-amount, amount)
        tinted = (c + common + self.between(-amount, amount) / 3 for c in colour)
        red, green, blue = (min(255.0, max(0.0, c)) for c in tinted)
        return red, green, blue

    def bytes_map(self, height: int, width: int) -> np.ndarray:
        """White noise, float64 (height, width), whole numbers 0..255."""
        count = height * width
        raw = np.asarray(self._bits.random_raw((count + 7) // 8), dtype="<u8")
        return raw.view(np.uint8)[:count].reshape(height, width).astype(np.float64)

    def soft_map(self, height: int, width: int, cell: int) -> np.ndarray:
        """Smooth noise, float64 (height, width) in [0, 1]; its hills are about ``cell`` px wide."""
        grid = self.bytes_map(height // cell + 2, width // cell + 2) / 255.0
        row, col = np.arange(height), np.arange(width)
        top, left = row // cell, col // cell
        down = ((row - top * cell) / cell)[:, None]
        right = (col - left * cell) / cell
        upper = grid[top] * (1 - down) + grid[top + 1] * down
        return upper[:, left] * (1 - right) + upper[:, left + 1] * right


@dataclass(frozen=True)
class Region:
    """Some pixels of a canvas: a box and a mask inside it.

    ``rows`` and ``cols`` are slices of the canvas, ``mask`` is bool (h, w).
    """

    rows: slice
    cols: slice
    mask: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """Rows of the pixel centres on the canvas, float64 (h, 1)."""
        return np.arange(self.rows.start, self.rows.stop, dtype=np.float64)[:, None] + 0.5

    @property
    def x(self) -> np.ndarray:
        """Columns of the pixel centres on the canvas, float64 (1, w)."""
        return np.arange(self.cols.start, self.cols.stop, dtype=np.float64)[None, :] + 0.5

    def where(self, condition: np.ndarray) -> Region:
        """The part of the region where ``condition``, bool (h, w) or broadcastable to it, holds."""
        return Region(self.rows, self.cols, self.mask & condition)


class Canvas:
    """An image in the making.

    Attributes:
        image: float64 (H, W, 3), RGB, nominally 0..255.
        segment: int32 (H, W), number of the visible segment, 0 is void.
        depth: float64 (H, W), distance from the camera in metres.
        grain, soft: float64 (H, W) in [0, 1], white and smooth noise for textures to draw on.
        noise: dice for whatever takes a number per pixel; apart from the others, so that a scene
            has the same objects in every size.
    """

    def __init__(self, height: int, width: int, noise: Dice) -> None:
        self.height, self.width, self.noise = height, width, noise
        self.image = np.zeros((height, width, 3))
        self.segment = np.zeros((height, width), dtype=np.int32)
        self.depth = np.full((height, width), SKY_DEPTH)
        self.grain = noise.bytes_map(height, width) / 255.0
        self.soft = noise.soft_map(height, width, max(2, height // 40))

    def box(self, left: float, top: float, right: float, bottom: float) -> Region:
        """The pixels whose centres lie in the box, clipped to the canvas; may be empty."""
        row0, row1 = _centres(top, bottom, self.height)
        col0, col1 = _centres(left, right, self.width)
        return Region(slice(row0, row1), slice(col0, col1), np.ones((row1 - row0, col1 - col0), bool))

    def polygon(self, points: Sequence[Point]) -> Region:
        """The pixels inside a convex polygon of (x, y) corners, in either turning direction."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        region = self.box(min(xs), min(ys), max(xs), max(ys))
        turn = _signed_area(points)
        inside = region.mask
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            side = (x1 - x0) * (region.y - y0) - (y1 - y0) * (region.x - x0)
            inside = inside & (side * turn >= 0)
        return Region(region.rows, region.cols, inside)

    def ellipse(self, x: float, y: float, half_width: float, half_height: float, ragged: float = 0.0) -> Region:
        """The pixels inside an ellipse; ``ragged`` > 0 lets smooth noise eat into its border."""
        reach_x, reach_y = half_width * (1 + ragged), half_height * (1 + ragged)
        region = self.box(x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        across, down = (region.x - x) / half_width, (region.y - y) / half_height
        limit = 1 + ragged * (2 * self.soft[region.rows, region.cols] - 1) if ragged else 1.0
        return region.where(across * across + down * down <= limit)

    def paint(
        self,
        region: Region,
        colour: Colour | np.ndarray,
        segment: int | None,
        depth: float | np.ndarray,
    ) -> None:
        """Cover a region with a colour, (3,) or (h, w, 3); ``segment=None`` keeps the labels."""
        mask = region.mask
        value = np.asarray(colour, dtype=np.float64)
        self.image[region.rows, region.cols][mask] = value if value.ndim == 1 else value[mask]
        if segment is None:
            return
        self.segment[region.rows, region.cols][mask] = segment
        self.depth[region.rows, region.cols][mask] = depth[mask] if isinstance(depth, np.ndarray) else depth

    def shade(self, region: Region, factor: float | np.ndarray) -> None:
        """Multiply the colours of a region by a factor, a number or (h, w); labels stay."""
        gain = np.broadcast_to(np.asarray(factor, dtype=np.float64), region.mask.shape)[region.mask]
        self.image[region.rows, region.cols][region.mask] *= gain[:, None]


def mix(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    """Colours between ``first`` and ``second``: share (h, w) in [0, 1] gives float64 (h, w, 3)."""
    start, end = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return start + (end - start) * share[..., None]


def _centres(low: float, high: float, size: int) -> tuple[int, int]:
    """First and one-past-last pixel of [0, size) whose centre lies in [low, high]."""
    first = min(size, max(0, math.ceil(low - 0.5)))
    last = max(0, min(size, math.floor(high - 0.5) + 1))
    return first, max(first, last)


def _signed_area(points: Sequence[Point]) -> float:
    total = 0.0  # not sum(): newer Pythons add floats in another way
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        total += x0 * y1 - x1 * y0
    return total
