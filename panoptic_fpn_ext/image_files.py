"""Reading images: the one way from a file to pixels, for training, evaluation and prediction.

Sound 8-bit images give detectron2's pixels, without the copies that cost it as much as the decoding. What it reads
wrongly (16-bit grey comes out white, TIFFs are turned twice) is read right here or refused by name.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from PIL import Image, UnidentifiedImageError

from .pixel_bound import pixel_bound
from .structures import UnreadableFileError

__all__ = ["image_channels", "image_size", "read_image", "read_labels", "to_input_format"]

_CHANNELS: Final = {"BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3, "HSV": 3}
_ORIENTATION: Final = 0x0112  # EXIF tag
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE: Final = 258  # TIFF tags
_PHOTOMETRIC: Final = 262
_SAMPLE_FORMAT: Final = 339
_WHITE_IS_ZERO: Final = 0
_SIGNED: Final = 2
_NO_IMAGE: Final = "is empty or no image. Replace the file or leave it out"
_ODD_TIFF: Final = "is a TIFF of a kind that Pillow does not read (many bands, floats): save it as 8-bit RGB"
# What files that Pillow does not know begin with.
_BEGINNINGS: Final = {
    rb"version https://git-lfs": "is a Git LFS pointer, no image: run `git lfs pull`",
    rb"....ftyp(he|mi|ms)": "is HEIC, which Pillow does not read: convert it to JPEG or PNG",
    rb"....ftyp": "is a video or of another kind that this Pillow does not read: convert it to JPEG or PNG",
    rb"II[*+]\0|MM\0[*+]": _ODD_TIFF,
    rb"\s*<": "is a web page, SVG or other text, no image. Replace the file or leave it out",
}


class _RefusedError(ValueError):
    """Says all but the name of the image."""


class _NoImageError(_RefusedError):
    """As a broken file: another one may be in its place tomorrow."""


def image_channels(image_format: str) -> int:
    """Channels of an ``INPUT.FORMAT``; ``ValueError`` for one that :func:`read_image` does not have."""
    if image_format not in _CHANNELS:
        raise ValueError(f"INPUT.FORMAT must be one of {list(_CHANNELS)}, got {image_format!r}.")
    return _CHANNELS[image_format]


def read_image(source: "str | os.PathLike[str] | Image.Image", image_format: str = "BGR") -> npt.NDArray[Any]:
    """Read an image, turned as its EXIF data say.

    Alpha is left out; a palette, CMYK, YCbCr and LAB become RGB. Of 16 bits (12 in some TIFFs) the highest 8 are
    taken, so 65535 is white, as OpenCV and Pillow do with 16-bit RGB. Of several frames or pages the first is read.

    Args:
        source: a file, anything ``PathManager`` knows, or an image of Pillow's, which is not changed.
        image_format: ``"BGR"``, ``"RGB"`` or another one of :func:`image_channels`.

    Returns:
        uint8 (H, W, C); ``"YUV-BT.601"``: float32, Y in [0, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, a broken one, or of a mode that has no black and white: 32-bit integers (I) and
            floats (F).
    """
    image_channels(image_format)
    name = _name(source)
    with _named(name), nullcontext(source) if isinstance(source, Image.Image) else _file(name) as image:
        array = _to_array(_to_rgb(image, name), image_format)
    return array


def image_size(path: "str | os.PathLike[str]") -> tuple[int, int]:
    """Height and width that :func:`read_image` gives a file, whose errors it has, without decoding the pixels."""
    with _named(os.fspath(path)), _file(os.fspath(path)) as image:
        # Of TIFFs, releases of Pillow differ in whether the size is turned before the pixels are there.
        width, height = _tag(image, 256, image.width), _tag(image, 257, image.height)
        sideways = _orientation(image) in (5, 6, 7, 8)
    return (width, height) if sideways else (height, width)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What goes wrong with an image in one sentence that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Image {name} does not exist.") from error
    except _RefusedError as error:
        raise ValueError(f"Image {name} {error}.") from error
    except Exception as error:  # Pillow's decoders have types of their own
        reason = str(error).rstrip(".") or type(error).__name__
        raise UnreadableFileError(
            f"Image {name} cannot be read: {reason}. Replace the file or leave it out."
        ) from error


def to_input_format(image: npt.NDArray[np.uint8], image_format: str) -> npt.NDArray[Any]:
    """An image in a model's ``INPUT.FORMAT``, as :func:`read_image` reads it.

    Args:
        image: uint8 (H, W, 3), BGR; it is not changed.
        image_format: one of :func:`image_channels`.

    Returns:
        (H, W, C), for ``"BGR"`` and ``"RGB"`` a view.
    """
    image_channels(image_format)
    if image_format == "BGR":
        return image
    rgb = image[:, :, ::-1]
    return rgb if image_format == "RGB" else _to_array(Image.fromarray(np.ascontiguousarray(rgb)), image_format)


def read_labels(path: str) -> npt.NDArray[np.integer]:
    """Read a map of semantic labels: grey values or, in a palette image, the indices.

    Args:
        path: the file, anything ``PathManager`` knows.

    Returns:
        uint8 (H, W), or int32 where a label is above 255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, a broken one, or one with colours, which are no labels.
    """
    try:
        with _file(path) as image:
            if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
                raise _RefusedError(f"has mode {image.mode}, but labels are one grey or palette value a pixel")
            labels = np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Label map {path} does not exist.") from error
    except Exception as error:
        reason = error if isinstance(error, _RefusedError) else f"cannot be read: {error}"
        raise ValueError(f"Label map {path} {reason}.") from error
    return labels.astype(np.uint8 if labels.max() <= np.iinfo(np.uint8).max else np.int32)


def _name(source: "str | os.PathLike[str] | Image.Image") -> str:
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or f"{source!r}"
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "An image is the name of a file, an image of Pillow's or, to predict, an array uint8 (H, W, 3); got "
            f"{type(source).__name__}."
        )
    return os.fspath(source)


@contextmanager
def _file(path: str) -> Iterator[Image.Image]:
    with PathManager.open(path, "rb") as f, _open(f) as image:
        yield image


def _open(f: Any) -> Image.Image:
    """The image of an open file, not decoded yet."""
    pixel_bound()
    try:
        return Image.open(f)
    except Image.DecompressionBombError as error:
        raise _RefusedError(
            f"is larger than Pillow decodes without being asked to ({error}) "
            "Make it smaller, cut it into parts or raise INPUT.MAX_IMAGE_PIXELS (--max-image-pixels; in Python, "
            "PIL.Image.MAX_IMAGE_PIXELS)"
        ) from error
    except UnidentifiedImageError as error:
        f.seek(0)
        beginning = f.read(32)
        reasons = (reason for known, reason in _BEGINNINGS.items() if re.match(known, beginning, re.DOTALL))
        raise _NoImageError(next(reasons, _NO_IMAGE)) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Of mode RGB, upright; the argument is not changed."""
    if getattr(image, "is_animated", False) and image.format != "MPO":  # whose others are previews
        message = f"Image {name} has several frames or pages: the first is read, as of all such images."
        log_first_n(logging.WARNING, message, name=__name__)
    image.load()  # first: TIFFs are turned by it
    turn = _TURNS.get(_orientation(image))
    if _SIGNED in _tag(image, _SAMPLE_FORMAT, ()):
        raise _RefusedError(_no_range(image, "signed integers"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _high_byte(image, name)
    elif image.mode == "F":
        raise _RefusedError(_no_range(image, "32-bit floats"))
    if image.mode != "RGB":
        image = _convert(image)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # broken EXIF data say nothing, and the image may be sound
        return None


def _convert(image: Image.Image) -> Image.Image:
    if "transparency" in image.info:  # which would make Pillow warn, and is left out
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise _RefusedError(f"has mode {image.mode}, which Pillow cannot make RGB: save it as 8-bit RGB") from error


def _high_byte(image: Image.Image, name: str) -> Image.Image:
    """The 8 highest of 16 (or 12) bits, mode L. Pillow's own conversion clips."""
    bits = _tag(image, _BITS_PER_SAMPLE, (16,))[0]
    if image.mode == "I" and image.format not in ("PNG", "PPM") and not (image.format == "TIFF" and bits <= 16):
        raise _RefusedError(_no_range(image, "32-bit integers"))
    values = np.asarray(image)
    most = int(values.max())
    if 0 < most < 1 << (bits - 4):
        message = (
            f"Image {name} has {bits} bits, but its values end at {most}, so it is read as nearly black. If that is "
            "its white, save it with 8 bits."
        )
        log_first_n(logging.WARNING, message, name=__name__)
    high = (values >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(~high if _tag(image, _PHOTOMETRIC, ()) == _WHITE_IS_ZERO else high)


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    """Value of a tag of a TIFF."""
    return getattr(image, "tag_v2", {}).get(number, default)


def _no_range(image: Image.Image, kind: str) -> str:
    low, high = image.getextrema()
    return (
        f"has mode {image.mode}, {kind} from {low} to {high}; nothing says which of them are black and white. Save "
        "it with 8 bits, or as 16-bit grey"
    )


def _to_array(rgb: Image.Image, image_format: str) -> npt.NDArray[Any]:
    """(H, W, C) of an image of mode RGB; of BGR and RGB read-only and contiguous."""
    if image_format in ("BGR", "RGB"):
        return np.frombuffer(rgb.tobytes("raw", image_format), np.uint8).reshape(rgb.height, rgb.width, 3)
    array = np.asarray(utils.convert_PIL_to_numpy(rgb, image_format))
    return array.astype(np.float32) if array.dtype == np.float64 else array
