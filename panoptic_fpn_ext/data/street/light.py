"""Time of day and weather of the synthetic street, and what they do to a finished image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Dice


@dataclass(frozen=True)
class Light:
    """How a scene is lit.

    Attributes:
        gain: factors of red, green and blue.
        zenith, skyline: colours of the sky at the top and at the horizon.
        haze: distance in metres at which half of a colour is lost in fog.
        shadow: what is left of the light in a shadow.
        lamps: are lamps and windows lit?
    """

    gain: Colour
    zenith: Colour
    skyline: Colour
    haze: float
    shadow: float
    lamps: bool


_LIGHTS = {
    "sunny": Light((1.08, 1.04, 0.98), (70, 125, 205), (175, 205, 235), 900, 0.55, False),
    "overcast": Light((0.9, 0.92, 0.95), (165, 170, 178), (205, 208, 212), 450, 0.82, False),
    "fog": Light((0.92, 0.93, 0.94), (190, 193, 196), (208, 210, 212), 60, 0.9, False),
    "dusk": Light((0.92, 0.72, 0.62), (95, 90, 140), (250, 180, 120), 500, 0.7, True),
    "night": Light((0.62, 0.63, 0.74), (25, 30, 62), (75, 70, 95), 600, 0.8, True),
}
_OFTEN = ("sunny", "sunny", "sunny", "overcast", "overcast", "fog", "dusk", "night")


def throw_light(dice: Dice) -> Light:
    """One of sunny, overcast, fog, dusk and night, a little varied."""
    base = _LIGHTS[dice.pick(_OFTEN)]
    strength = dice.between(0.88, 1.1)
    red, green, blue = (g * strength * dice.between(0.96, 1.04) for g in base.gain)
    return Light(
        gain=(red, green, blue),
        zenith=dice.jitter(base.zenith, 18),
        skyline=dice.jitter(base.skyline, 15),
        haze=base.haze * dice.between(0.7, 1.5),
        shadow=base.shadow,
        lamps=base.lamps,
    )


def develop(canvas: Canvas, light: Light, dice: Dice) -> np.ndarray:
    """The image as the camera sees it: fog, exposure, a soft lens now and then, sensor noise.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    clear = (light.haze / (light.haze + canvas.depth))[..., None]
    seen = canvas.image * np.asarray(light.gain) * clear + np.asarray(light.skyline) * (1 - clear)
    if dice.chance(0.35):
        seen = _soften(seen)
    amount = dice.between(3, 9)
    grains = [canvas.noise.bytes_map(canvas.height, canvas.width) for _ in range(2)]
    noisy = seen + (((grains[0] + grains[1]) / 255.0 - 1.0) * amount)[..., None]
    return np.clip(np.floor(noisy + 0.5), 0, 255).astype(np.uint8)


def _soften(image: np.ndarray) -> np.ndarray:
    """Blur with the binomial kernel 1-2-1 in both directions; borders repeat."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
