"""Images of pixels as channels, and arrays whose rows were flipped, copied the fast way."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..opencv import cv2_or_none

__all__ = ["in_row_order", "to_planes"]


def to_planes(image: npt.NDArray[Any]) -> torch.Tensor:
    """(h, w, c) -> (c, h, w), a copy."""
    planes = image.transpose(2, 0, 1)
    if abs(planes.strides[2]) == planes.itemsize:  # what the vectorised resize makes, flipped or not
        return torch.from_numpy(np.array(in_row_order(planes)))
    image = in_row_order(image)
    cv2 = cv2_or_none()
    if cv2 is not None and image.shape[2] == 3:
        planes = np.empty((3, *image.shape[:2]), image.dtype)
        cv2.split(image, list(planes))
        return torch.from_numpy(planes)
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    for c, plane in enumerate(planes):  # NumPy's own order of copying walks along the channels of each pixel
        plane[...] = image[..., c]
    return torch.from_numpy(planes)


def in_row_order(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, C-contiguous. What was flipped from left to right is a view that NumPy is slow to copy."""
    flipped = tuple(axis for axis, stride in enumerate(array.strides) if stride < 0)
    unflipped = np.flip(array, flipped)
    if flipped and unflipped.flags.c_contiguous:
        # PyTorch copies; it warns of read-only memory because it cannot know that.
        source = unflipped if unflipped.flags.writeable else unflipped.copy()
        return torch.from_numpy(source).flip(flipped).numpy()
    return np.ascontiguousarray(array)
