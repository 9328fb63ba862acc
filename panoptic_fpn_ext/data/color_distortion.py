"""Random colours, as SSD (arXiv 1512.02325) learns from them: brightness, contrast, saturation and hue."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from detectron2.data import transforms as T

__all__ = ["ColorDistortion", "ColorShift", "distort_colors"]

_BRIGHTNESS = 32  # at most, of 255
_CONTRAST = _SATURATION = (0.5, 1.5)
_HUE = 18  # at most, of 180 that OpenCV has in a circle


class ColorShift(NamedTuple):
    """What is done to the colours of an image; each at its default changes nothing.

    ``brightness`` is added, of 255; ``contrast`` and ``saturation`` are factors; ``hue`` is added, in 2°.
    ``contrast_last`` says whether the contrast comes after saturation and hue instead of before.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: int = 0
    contrast_last: bool = False


class ColorDistortion(T.Augmentation):
    """Draws a :class:`ColorShift` for each image: each of its four parts in half of all cases.

    Draws come from NumPy's global generator, which detectron2 seeds in every worker.
    """

    def __init__(self, image_format: str) -> None:
        """``image_format``: channel order of the images, ``"BGR"`` or ``"RGB"``; ``ValueError`` for another."""
        super().__init__()
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"INPUT.COLOR_AUG_SSD needs INPUT.FORMAT 'BGR' or 'RGB', got {image_format!r}.")
        self._init({"image_format": image_format})

    def get_transform(self, image: npt.NDArray[Any]) -> T.Transform:
        """What is done to an image."""
        shift = ColorShift(
            brightness=self._draw(-_BRIGHTNESS, _BRIGHTNESS, 0.0),
            contrast=self._draw(*_CONTRAST, 1.0),
            saturation=self._draw(*_SATURATION, 1.0),
            hue=round(self._draw(-_HUE, _HUE, 0.0)),
            contrast_last=bool(self._rand_range() < 0.5),
        )
        return T.ColorTransform(partial(distort_colors, shift=shift, image_format=self.image_format))

    def _draw(self, low: float, high: float, otherwise: float) -> float:
        return float(self._rand_range(low, high)) if self._rand_range() < 0.5 else otherwise


def distort_colors(image: npt.NDArray[np.uint8], shift: ColorShift, image_format: str) -> npt.NDArray[np.uint8]:
    """Change the colours of an image; each step rounds down to whole numbers and keeps to 0 … 255.

    Args:
        image: uint8 (H, W, 3); it is not changed.
        shift: what to do.
        image_format: ``"BGR"`` or ``"RGB"``.

    Raises:
        ImportError: OpenCV, which knows hue and saturation, is not installed.
    """
    contrast = _table(shift.contrast, 0.0)
    image = _table(1.0, shift.brightness)[image]
    if not shift.contrast_last:
        image = contrast[image]
    if shift.saturation != 1 or shift.hue != 0:
        image = _turn(image, shift, image_format)
    return contrast[image] if shift.contrast_last else image


def _table(factor: float, added: float) -> npt.NDArray[np.uint8]:
    """Values of all 256 numbers."""
    return np.clip(np.arange(256) * factor + added, 0, 255).astype(np.uint8)


def _turn(image: npt.NDArray[np.uint8], shift: ColorShift, image_format: str) -> npt.NDArray[np.uint8]:
    import cv2

    to_hsv, from_hsv = (getattr(cv2, f"COLOR_{name}") for name in (f"{image_format}2HSV", f"HSV2{image_format}"))
    hsv = cv2.cvtColor(np.ascontiguousarray(image), to_hsv)
    hsv[..., 0] = ((np.arange(256) + shift.hue) % 180).astype(np.uint8)[hsv[..., 0]]
    hsv[..., 1] = _table(shift.saturation, 0.0)[hsv[..., 1]]
    return np.asarray(cv2.cvtColor(hsv, from_hsv))
