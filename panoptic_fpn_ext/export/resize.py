"""detectron2's resizing of an image, as arithmetic that a graph can hold.

Pillow resizes in two passes, columns first, each with an antialiasing triangle filter whose weights are whole multiples
of 2^-22, and rounds to uint8 after each. All of that is done here in int32, so every runtime gives Pillow's pixels.
From release 13 on it takes rows first where it shrinks them by more than twice as many as columns, which is so for
images more than twice as high as wide. A graph has the order of the Pillow that its maker has.

Shapes: H, W image, h, w network input; n source and N target positions along one axis, K taps of a position.
"""

import PIL
import torch

from .tensors import Size, length, scripted

__all__ = ["network_input_size", "resize_image"]

# Pillow's fixed point: a weight of 1 is 2^22. The quotient has one bit more, for rounding.
_ONE = 2**22
_QUOTIENT_BITS = (8, 8, 7)
_MAY_TAKE_ROWS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13


def network_input_size(height: torch.Tensor, width: torch.Tensor, min_size: int, max_size: int) -> list[torch.Tensor]:
    """(h, w) of `ResizeShortestEdge`, but no side is 0; in float64 as there, or ties would round another way.

    Args:
        height, width: int64 (), of the image.
        min_size: length of the shorter side; 0 keeps the image as it is.
        max_size: bound of the longer one.
    """
    if min_size == 0:
        return [height, width]
    sides = torch.stack([height, width]).double()
    shorter = sides.min()
    scale = float(min_size) / shorter
    resized = torch.where(sides == shorter, torch.full_like(sides, float(min_size)), scale * sides)
    longest = resized.max()
    resized = torch.where(longest > max_size, resized * (float(max_size) / longest), resized)
    rounded = (resized + 0.5).floor().clamp(min=1).long()
    return [rounded[0], rounded[1]]


def resize_image(image: torch.Tensor, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Pillow's ``resize`` with its bilinear filter.

    Args:
        image: uint8 (H, W, 3).
        height, width: int64 (), h and w.

    Returns:
        int32 (h, w, 3), 0…255.
    """
    pixels = image.int()
    if not _MAY_TAKE_ROWS_FIRST:
        columns = _resize_rows(pixels.transpose(0, 1), width)
        return _resize_rows(columns.transpose(0, 1), height)
    fewer_rows, fewer_columns = length(image, 0) - height, length(image, 1) - width
    rows_first = (fewer_rows > 0) & (fewer_rows > 2 * fewer_columns)
    first, second = torch.where(rows_first, height, width), torch.where(rows_first, width, height)
    once = _resize_rows(_transposed_unless(rows_first, pixels), first)
    return _transposed_unless(~rows_first, _resize_rows(once.transpose(0, 1), second))


@scripted
def _transposed_unless(condition: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The image where the condition holds, else its transpose; a tracer would keep one of the two for ever."""
    return image if bool(condition) else image.transpose(0, 1)


def _resize_rows(image: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """int32 (n, m, 3) to (N, m, 3)."""
    index, weight = _taps(length(image, 0), out)
    return _weighted_rows(image, index, weight)


def _taps(source: Size, out: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """What each of ``out`` positions is made of: int64 (K, N) sources and int32 (K, N) weights.

    Distances are counted in 1 / (2 N) source pixels, in which all of them are whole numbers.
    """
    n, target = source.int(), out.int()
    reach = 2 * torch.maximum(n, target)
    centre = (2 * torch.arange(out, dtype=torch.int32) + 1) * n
    first = _divide((centre - reach + target).clamp(min=0), 2 * target)
    taps: Size = _divide(reach + target - 1, target) + 1
    index = first + torch.arange(taps, dtype=torch.int32)[:, None]  # K, N
    distance = ((2 * index + 1) * target - centre).abs()
    weight = (reach - distance).clamp(min=0) * (index < n).int()
    return torch.minimum(index, n - 1).long(), _fixed_point(weight, weight.sum(dim=0, dtype=torch.int32))


def _fixed_point(weight: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """``weight / total`` in units of 1 / 2^22, rounded half up, by long division within int32."""
    quotient, rest = torch.zeros_like(weight), weight
    for bits in _QUOTIENT_BITS:
        rest = rest * 2**bits
        digits = _divide(rest, total)
        quotient, rest = quotient * 2**bits + digits, rest - digits * total
    return _divide(quotient + 1, torch.full_like(total, 2))


def _divide(dividend: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """Whole quotient of numbers that are not negative, for which truncating is flooring."""
    return torch.div(dividend, divisor, rounding_mode="trunc")


@scripted
def _weighted_rows(image: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """int32 (n, m, 3), (K, N), (K, N) to (N, m, 3): one tap at a time, so that memory does not grow with K.

    The two halves of the weights are summed apart: OpenVINO computes int32 in float32, which has 24 bits.
    """
    high = torch.div(weight, 2048, rounding_mode="trunc")
    low = weight - high * 2048
    rows = image.index_select(0, index[0])
    upper = rows * high[0].unsqueeze(1).unsqueeze(2)
    lower = rows * low[0].unsqueeze(1).unsqueeze(2)
    for k in range(1, index.size(0)):
        rows = image.index_select(0, index[k])
        upper = upper + rows * high[k].unsqueeze(1).unsqueeze(2)
        lower = lower + rows * low[k].unsqueeze(1).unsqueeze(2)
    upper = upper + torch.div(lower, 2048, rounding_mode="trunc") + 1024  # a half, for rounding
    return torch.div(upper, 2048, rounding_mode="trunc")
