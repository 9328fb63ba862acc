"""A feature pyramid that makes fewer maps.

Shapes: N images, C channels, h, w.
"""

from collections.abc import Callable

import torch
from detectron2.modeling import FPN
from torch import nn

from .convolution import is_bare, is_pointwise
from .cpu import is_usual, scratch

__all__ = ["InPlaceFPN"]


class InPlaceFPN(FPN):
    """detectron2's `FPN`, of which each finer level is added to where it stands; no upsampled map is made.

    The finest maps are the largest of the whole model, and the first touch of their memory costs more than the sum.
    """

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """float (N, 3, h, w) → maps by name, finest first, float (N, C, h / stride, w / stride)."""
        if not is_usual(x):
            usual: dict[str, torch.Tensor] = super().forward(x)
            return usual
        bottom_up = self.bottom_up(x)
        levels: list[torch.Tensor] = []
        coarser = None
        for name, lateral, output in zip(self.in_features[::-1], self.lateral_convs, self.output_convs, strict=True):
            # Made by a convolution or an upsampling: nothing else needs it.
            if coarser is None:
                level = lateral(bottom_up[name])
            else:
                # The finest is read by its output convolution only.
                make = scratch if name == self.in_features[0] else coarser.new_empty
                level = _lateral_sum(bottom_up[name], lateral, coarser, make)
            if coarser is not None and self._fuse_type == "avg":
                level /= 2
            levels.insert(0, output(level))
            coarser = level
        if self.top_block is not None:
            maps = {**dict(zip(self._out_features, levels, strict=False)), **bottom_up}
            levels += self.top_block(maps[self.top_block.in_feature])
        return dict(zip(self._out_features, levels, strict=True))


def _lateral_sum(
    x: torch.Tensor, lateral: nn.Conv2d, coarser: torch.Tensor, make: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """lateral(x), float (N, C, h, w), plus ``coarser``, (N, C, h / 2, w / 2), upsampled; ``make`` gives memory."""
    bias = lateral.bias
    if bias is None or not (is_pointwise(lateral) and is_bare(lateral) and is_usual(x)):
        level: torch.Tensor = lateral(x)
        _add_upsampled(level, coarser)
        return level
    # The matrix product adds to what is there, and gives the output convolution the channels first that NNPACK wants.
    biased = coarser.contiguous() + bias[:, None, None]
    level = make(*biased.shape[:2], *x.shape[2:])
    torch.ops.aten.upsample_nearest2d.out(biased, level.shape[2:], out=level)
    level.flatten(2).baddbmm_(lateral.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))
    return level


def _add_upsampled(level: torch.Tensor, coarser: torch.Tensor) -> None:
    """Add float (N, C, h, w) to each 2×2 block of ``level``, (N, C, 2·h, 2·w)."""
    h, w = coarser.shape[2:]
    blocks = level.unflatten(3, (w, 2)).unflatten(2, (h, 2))  # N, C, h, 2, w, 2
    blocks += coarser[:, :, :, None, :, None]
