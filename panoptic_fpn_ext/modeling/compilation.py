"""Which parts of a model `torch.compile` leaves to Python."""

from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["left_to_python"]

Class = TypeVar("Class", bound=type)


def left_to_python(*names: str) -> Callable[[Class], Class]:
    """Class decorator: `torch.compile` leaves these methods, and what they call, as they are.

    Proposals, RoI heads and merging depend on how many boxes there are: compiling them takes many minutes, again for
    each number, and makes nothing faster.
    """

    def decorate(cls: Class) -> Class:
        for name in names:
            setattr(cls, name, torch.compiler.disable(getattr(cls, name)))
        return cls

    return decorate
