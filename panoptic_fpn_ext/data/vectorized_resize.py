"""Resizing training images by PyTorch's vector instructions.

Pillow's bilinear filter takes more time than anything else between a file and a training input. PyTorch has the same
filter for 8-bit images with fixed-point weights of fewer bits: it is faster, and values differ by at most 1 of 255.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import transforms as T
from PIL import Image
from torch.nn import functional as F

from .nonempty import NonemptyResizeShortestEdge
from .planes import in_row_order

__all__ = ["VectorizedResizeShortestEdge", "VectorizedResizeTransform", "vectorized"]


def vectorized(augmentation: T.Augmentation) -> T.Augmentation:
    """The augmentation with a faster resize, if it is detectron2's `ResizeShortestEdge`; else itself."""
    if type(augmentation) is not T.ResizeShortestEdge:
        return augmentation
    faster = copy.copy(augmentation)
    faster.__class__ = VectorizedResizeShortestEdge
    return faster


class VectorizedResizeShortestEdge(NonemptyResizeShortestEdge):
    """detectron2's `ResizeShortestEdge`: the same sizes, and values within 1 of 255."""

    def get_transform(self, image: npt.NDArray[Any]) -> T.Transform:
        """For an image (H, W, c)."""
        transform = super().get_transform(image)
        if type(transform) is T.ResizeTransform:
            transform.__class__ = VectorizedResizeTransform
        return transform


class VectorizedResizeTransform(T.ResizeTransform):
    """detectron2's `ResizeTransform`; other images than 8-bit ones with three channels, other filters than the
    bilinear one, and labels are resized as there.
    """

    def apply_image(self, img: npt.NDArray[Any], interp: int | None = None) -> npt.NDArray[Any]:
        """uint8 (H, W, 3) → uint8 (h, w, 3)."""
        is_bilinear = (self.interp if interp is None else interp) == Image.Resampling.BILINEAR
        if not is_bilinear or img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3 or not img.size:
            resized: npt.NDArray[Any] = super().apply_image(img, interp)
            return resized
        assert img.shape[:2] == (self.h, self.w), (img.shape, self.h, self.w)
        ordered = in_row_order(img)
        if not ordered.flags.writeable:  # which PyTorch does not take, and copying is cheap beside the rest
            ordered = ordered.copy()
        source = torch.from_numpy(ordered).permute(2, 0, 1)[None]
        planes = F.interpolate(source, (self.new_h, self.new_w), mode="bilinear", antialias=True)[0]
        return planes.permute(1, 2, 0).numpy()
