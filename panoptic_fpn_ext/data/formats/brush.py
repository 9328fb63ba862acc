"""Masks of Label Studio: of the brush, a run-length code of bits, as ``@thi.ng/rle-pack`` packs RGBA; and bitmasks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["decode_bitmask", "decode_brush"]


def decode_brush(rle: Sequence[int], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a brush mask.

    Args:
        rle: bytes.
        size: (H, W) of the image.

    Returns:
        bool (H, W): where the mask's alpha is above 0.

    Raises:
        ValueError: the code is broken, or of another size.
    """
    try:
        values = _unpack(bytes(rle), size[0] * size[1] * 4)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"a brush mask that cannot be decoded ({error})") from error
    return values.reshape(*size, 4)[..., 3] > 0


def decode_bitmask(url: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a bitmask.

    Args:
        url: ``data:image/png;base64,…``, an image that is transparent outside the mask.
        size: (H, W) of the image.

    Returns:
        bool (H, W).

    Raises:
        ValueError: it is no such image, or of another size.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            mask = np.asarray(image.convert("RGBA").getchannel("A") if has_alpha else image.convert("L")) > 0
    except Exception as error:  # base64's and Pillow's
        raise ValueError(f"a bitmask that cannot be decoded ({error})") from error
    if mask.shape != size:
        raise ValueError(f"a bitmask of (height, width) {mask.shape} in an image of {size}")
    return mask


def _unpack(data: bytes, expected: int) -> npt.NDArray[np.uint8]:
    """32 bits: number of words. 5 bits: bits a word, less 1. Four times 4 bits: bits of a run's length, less 1. Then
    runs: 1 bit (repeat or not), 2 bits (which length), the length less 1, and one word or as many as the length says.
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        if position + count > len(bits):
            raise ValueError("it ends too soon")
        position += count
        return int(bits[position - count : position], 2)

    total, word = take(32), take(5) + 1
    if total != expected:
        raise ValueError(f"it is of {total // 4} px, the image has {expected // 4}")
    lengths = [take(4) + 1 for _ in range(4)]
    out = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeats, length = take(1), take(lengths[take(2)]) + 1
        if done + length > total:
            raise ValueError("its runs are longer than it says")
        if repeats:
            out[done : done + length] = take(word)
        else:
            out[done : done + length] = [take(word) for _ in range(length)]
        done += length
    return out
