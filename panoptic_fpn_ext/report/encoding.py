"""Images and panoptic maps as text in a page: small, and every segment there.

Shapes: H, W image, h, w thumbnail, K segments.
"""

from __future__ import annotations

import base64
import zlib
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["encode_map", "encode_photo", "shrink_map", "thumbnail_size"]

_QUALITY = 78


def thumbnail_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) with the aspect ratio of (H, W) and at most ``side`` px; never enlarged, never empty."""
    height, width = size
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def encode_photo(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
    """JPEG in base64 of an image, uint8 (H, W, 3) RGB, as (h, w)."""
    if image.shape[:2] != size:
        image = np.asarray(cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=cv2.INTER_AREA))
    data = BytesIO()
    Image.fromarray(image).save(data, format="JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def shrink_map(index: npt.NDArray[np.integer], size: tuple[int, int], num_segments: int) -> npt.NDArray[np.uint16]:
    """A smaller index map, uint16 (h, w); a segment that falls between the pixels that are kept gets one of them.

    Args:
        index: integers (H, W), k + 1 where segment k is, 0 elsewhere.
        size: (h, w).
        num_segments: K, at most 65535.
    """
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * full / n).astype(np.intp), full - 1)
        for n, full in zip(size, index.shape, strict=True)
    )
    small = index[rows[:, None], columns].astype(np.uint16)
    if small.shape == index.shape:
        return small
    kept = np.bincount(small.reshape(-1), minlength=num_segments + 1) > 0
    values, first = np.unique(index, return_index=True)
    for value, place in zip(values.tolist(), first.tolist(), strict=True):
        if value and not kept[value]:
            y, x = divmod(place, index.shape[1])
            small[y * size[0] // index.shape[0], x * size[1] // index.shape[1]] = value
    return small


def encode_map(small: npt.NDArray[np.uint16]) -> str:
    """Base64 of a zlib stream of bytes: the low bytes of all pixels, then, if any is not 0, the high ones; of each
    plane every row but the first is the bitwise difference from the row above.
    """
    planes = [(small & 255).astype(np.uint8)]
    if small.size and small.max() > 255:
        planes.append((small >> 8).astype(np.uint8))
    data = b""
    for plane in planes:
        plane[1:] ^= plane[:-1].copy()
        data += plane.tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()
