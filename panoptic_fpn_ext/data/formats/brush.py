"""Brush masks of Label Studio: a run-length code of bits, as ``@thi.ng/rle-pack`` packs the RGBA bytes of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["decode_brush"]


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
