"""ReLUs that overwrite what a layer right before them has just made."""

from typing import Any

from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from .replace import Place

__all__ = ["follows_layer", "has_relu_function", "rectify_in_place", "use_inplace_relu"]


def follows_layer(place: Place) -> bool:
    """Whether a module takes what a convolution or a fully connected layer gives, and nothing else does."""
    if isinstance(place.parent, Conv2d):
        return place.parent.activation is place.module
    return isinstance(place.parent, nn.Sequential) and isinstance(
        place.previous, nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    )


def rectify_in_place(place: Place) -> nn.Module:
    """The same `ReLU` or `ReLU6`, in place."""
    place.module.inplace = True
    relu: nn.Module = place.module
    return relu


def has_relu_function(place: Place) -> bool:
    """Whether a convolution of detectron2's class is followed by the function ``relu``."""
    return place.module.activation is F.relu


def use_inplace_relu(place: Place) -> nn.Module:
    """The same convolution, with ``relu_`` for its ``relu``."""
    conv: Any = place.module
    conv.activation = F.relu_
    return conv
