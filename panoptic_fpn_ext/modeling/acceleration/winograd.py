"""3×3 convolutions by the algorithm that is fastest where they are.

Winograd's minimal filtering (Lavin and Gray, 2016) computes 6×6 outputs of a 3×3 convolution with 64 multiplications a
channel in place of 324. PyTorch ships it for CPUs in NNPACK's operator, and does not choose it by itself. Whether it is
faster depends on the machine, the channels and the size of the map, so it is measured.

Shapes: N images or RoIs, C input, K output channels, h, w.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .convolution import FasterConv2d
from .replace import Place

__all__ = ["ALGORITHMS", "FastestConv2d", "fastest_algorithm", "has_choice", "share_choices"]

# Of each algorithm; the first call of an algorithm also pays for its memory.
_ROUNDS = 2
# As opposed to RoIs, of which there are many and each is small.
_FEW_IMAGES = 16

Kind = tuple[int, int, int, int]


def has_choice(place: Place) -> bool:
    """Whether a convolution is one that Winograd's algorithm computes."""
    conv = place.module
    geometry = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    return geometry == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1 and conv.padding_mode == "zeros"


def share_choices(model: nn.Module) -> None:
    """Let the convolutions of a model measure together, so that a kind of input is measured once."""
    choices: dict[Kind, str] = {}
    for conv in model.modules():
        if isinstance(conv, FastestConv2d) and not hasattr(conv, "choices"):
            conv.choices = choices


class FastestConv2d(FasterConv2d):
    """3×3 convolution with stride and padding 1.

    Attributes:
        choices: algorithm for each kind of input that occurred, shared by the convolutions of a model. A kind is the
            channels, and N and h·w up to a power of two: so images of many sizes need few measurements.
    """

    choices: dict[Kind, str]

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """By the fastest algorithm, which is measured if this kind of input is new."""
        kind = (self.in_channels, self.out_channels, len(x).bit_length(), (x.shape[2] * x.shape[3]).bit_length())
        if kind not in self.choices:
            self.choices[kind] = fastest_algorithm(x, self.weight, self.bias)
        convolved: torch.Tensor = ALGORITHMS[self.choices[kind]](x, self.weight, self.bias)
        return convolved


def fastest_algorithm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
    """Name in ``ALGORITHMS`` of what takes the least time; see :func:`_direct` for the arguments."""
    if not _winograd_is_available():
        return "direct"
    is_batch = 1 < len(x) <= _FEW_IMAGES
    seconds = dict.fromkeys(ALGORITHMS if is_batch else ("direct", "winograd"), float("inf"))
    for _ in range(_ROUNDS):
        for name in seconds:
            start = time.perf_counter()
            ALGORITHMS[name](x, weight, bias)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return min(seconds, key=lambda name: seconds[name])


@functools.cache
def _winograd_is_available() -> bool:
    """Asking is necessary: it is what loads NNPACK, whose operator fails otherwise."""
    return hasattr(torch.ops.aten, "_nnpack_spatial_convolution") and torch.backends.nnpack.is_available()


def _direct(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """PyTorch's choice: float (N, C, h, w), (K, C, 3, 3), (K,) → (N, K, h, w), in the layout of ``x``."""
    return F.conv2d(x, weight, bias, padding=1)


def _winograd(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """With channels first. For N > 1 the operator takes a Fourier transform, which is for maps as small as a RoI's."""
    if not _winograd_is_available():  # as when a model was pickled on another machine
        return _direct(x, weight, bias)
    try:
        convolved: torch.Tensor = torch.ops.aten._nnpack_spatial_convolution(
            _channels_first(x), weight, bias, [1, 1], [1, 1]
        )
    except RuntimeError:  # the operator knows what it supports, and says so only by failing
        return _direct(x, weight, bias)
    return convolved


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    """``x.contiguous()``, in half the time for large maps: PyTorch has a fast way to transpose, for matrices only."""
    n, c, h, w = x.shape
    if n > _FEW_IMAGES or not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous()
    ordered = x.new_empty(n, c, h * w)
    for source, target in zip(x, ordered, strict=True):
        target.copy_(source.permute(1, 2, 0).view(h * w, c).t())
    return ordered.view(n, c, h, w)


def _winograd_by_image(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """One after the other."""
    return torch.cat([_winograd(one, weight, bias) for one in x.split(1)])


ALGORITHMS: dict[str, Callable[..., Any]] = {
    "direct": _direct,
    "winograd": _winograd,
    "winograd_by_image": _winograd_by_image,
}
"""What convolves: functions of x, weight and bias, all with the same result up to rounding."""
