"""How many pixels a file may say that it has: one of a few kilobytes can ask for gigabytes of memory.

Pillow has such a bound; other decoders have none.
"""

import os
from typing import Final

from PIL import Image

__all__ = ["pixel_bound", "set_pixel_bound"]

_VARIABLE: Final = "PANOPTIC_FPN_EXT_MAX_IMAGE_PIXELS"  # of the environment, so that processes started later have it


def set_pixel_bound(pixels: int) -> None:
    """Take another bound than Pillow's, in this process and those it starts; 0 leaves it as it is.

    Raises:
        ValueError: a negative bound.
    """
    if pixels < 0:
        raise ValueError(f"INPUT.MAX_IMAGE_PIXELS must be 0, for Pillow's bound, or more, got {pixels}.")
    if pixels:
        os.environ[_VARIABLE] = str(pixels)
        pixel_bound()


def pixel_bound() -> int | None:
    """The most pixels that a file may have, made Pillow's bound too; None for no bound."""
    given = os.environ.get(_VARIABLE, "")
    if given.isdigit():
        Image.MAX_IMAGE_PIXELS = -(-int(given) // 2)  # Pillow warns from there on, and refuses from twice that
        return int(given)
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
