"""Reading images as detectron2 does, pixel for pixel, but without the copies that cost it as much as the decoding."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["in_row_order", "read_image", "to_planes"]


def read_image(path: str, image_format: str = "BGR") -> npt.NDArray[np.uint8]:
    """Read an image, turned as its EXIF data say.

    Args:
        path: the file, anything ``PathManager`` knows.
        image_format: channel order, ``"BGR"`` or ``"RGB"``.

    Returns:
        uint8 (H, W, 3).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or a broken one.
    """
    try:
        return _read_image(path, image_format)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Image {path} does not exist.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"Image {path} is empty or no image. Replace the file or leave it out.") from error
    except Exception as error:  # Pillow's decoders have types of their own
        raise ValueError(f"Image {path} cannot be read: {error}. Replace the file or leave it out.") from error


def _read_image(path: str, image_format: str) -> npt.NDArray[Any]:
    """As `detectron2.data.detection_utils.read_image`; BGR too is contiguous, not a view with a negative stride.

    Args:
        path: anything ``PathManager`` knows.
        image_format: ``"BGR"``, ``"RGB"`` or another one of detectron2's.

    Returns:
        uint8 (H, W, 3), read-only, for BGR and RGB.
    """
    if image_format not in ("BGR", "RGB"):
        return np.asarray(utils.read_image(path, format=image_format))
    with PathManager.open(path, "rb") as f, Image.open(f) as image:
        ImageOps.exif_transpose(image, in_place=True)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return np.frombuffer(rgb.tobytes("raw", image_format), np.uint8).reshape(rgb.height, rgb.width, 3)


def to_planes(image: npt.NDArray[Any]) -> torch.Tensor:
    """(h, w, c) -> (c, h, w), a copy."""
    planes = image.transpose(2, 0, 1)
    if abs(planes.strides[2]) == planes.itemsize:  # what the vectorised resize makes, flipped or not
        return torch.from_numpy(np.array(in_row_order(planes)))
    image = in_row_order(image)
    cv2 = _cv2()
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


@cache
def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    return cv2
