"""OpenCV where it is there: copies and PNGs are faster with it, and the same without."""

from functools import cache
from typing import Any

__all__ = ["cv2_or_none"]


@cache
def cv2_or_none() -> Any:
    """The module ``cv2``, None where it cannot be imported."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2
