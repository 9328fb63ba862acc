"""Resizing and cropping that leave at least one pixel, also of images as flat as 3000×1 or as small as 1×1.

detectron2 rounds the sides of what it makes: 3000×1 px, shrunk to at most 1333, would be 1333×0.
"""

import copy
from typing import Any

import numpy.typing as npt
from detectron2.data import transforms as T

__all__ = ["NonemptyCrop", "NonemptyResizeShortestEdge", "nonempty"]


class NonemptyResizeShortestEdge(T.ResizeShortestEdge):
    """detectron2's `ResizeShortestEdge`, but no side is 0."""

    def get_transform(self, image: npt.NDArray[Any]) -> T.Transform:
        """For an image (H, W, c)."""
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(1, transform.new_h), max(1, transform.new_w)
        return transform


class NonemptyCrop(T.RandomCrop):
    """detectron2's `RandomCrop`, but no side is 0."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels, for an image of that size."""
        height, width = super().get_crop_size(image_size)
        return max(1, height), max(1, width)


_NONEMPTY = {T.ResizeShortestEdge: NonemptyResizeShortestEdge, T.RandomCrop: NonemptyCrop}


def nonempty(augmentation: T.Augmentation) -> T.Augmentation:
    """The augmentation with the same draws and no empty results, if it is one of detectron2's that this module has;
    else itself.
    """
    if type(augmentation) is T.RandomCrop_CategoryAreaConstraint:
        result = copy.copy(augmentation)
        result.crop_aug = nonempty(augmentation.crop_aug)
        return result
    if type(augmentation) not in _NONEMPTY:
        return augmentation
    result = copy.copy(augmentation)
    result.__class__ = _NONEMPTY[type(augmentation)]
    return result
