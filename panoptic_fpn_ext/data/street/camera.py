"""The camera of the synthetic street: a pinhole over flat ground, slightly bent and tilted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Dice, Point


@dataclass(frozen=True)
class Camera:
    """World metres to image pixels.

    World, in metres: ``ahead`` of the camera, ``across`` to its right, ``up`` above the ground.

    Attributes:
        height, width: size of the image, px.
        horizon, vanish: row and column of the vanishing point, px.
        focal: focal length, px.
        lift: height of the camera over the ground, m.
        bend: how far the far end of the road is shifted to the right, px.
        tilt: slope of the horizon, rows per column.
    """

    height: int
    width: int
    horizon: float
    vanish: float
    focal: float
    lift: float
    bend: float
    tilt: float

    def scale(self, ahead: float) -> float:
        """Pixels per metre at a distance of ``ahead`` metres."""
        return self.focal / ahead

    def project(self, across: float, ahead: float, up: float = 0.0) -> Point:
        """Image position (x, y) in pixels of a world point."""
        scale = self.scale(ahead)
        near = min(1.0, self.lift * scale / (self.height - self.horizon))
        x = self.vanish + self.bend * (1 - near) * (1 - near) + across * scale
        y = self.horizon + self.tilt * (x - self.width / 2) + (self.lift - up) * scale
        return x, y

    def ground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each pixel (H, W): is it ground (bool), its ``across`` and its ``ahead`` in metres."""
        x = np.arange(self.width, dtype=np.float64)[None, :] + 0.5
        y = np.arange(self.height, dtype=np.float64)[:, None] + 0.5
        below = y - self.tilt * (x - self.width / 2) - self.horizon
        is_ground = below > 0.5
        below = np.maximum(below, 0.5)
        near = np.minimum(1.0, below / (self.height - self.horizon))
        scale = below / self.lift
        across = (x - self.vanish - self.bend * (1 - near) * (1 - near)) / scale
        return is_ground, across, self.focal / scale


def throw_camera(dice: Dice, height: int, width: int) -> Camera:
    """A camera as a car, a pedestrian or a first-floor window could have it."""
    return Camera(
        height=height,
        width=width,
        horizon=height * dice.between(0.24, 0.56),
        vanish=width * dice.between(0.1, 0.9),
        focal=height * dice.between(0.7, 1.05),
        lift=dice.between(1.3, 3.4),
        bend=width * dice.between(-0.25, 0.25) if dice.chance(0.5) else 0.0,
        tilt=dice.between(-0.06, 0.06),
    )
