"""Panoptic maps as COCO stores them: an 8-bit RGB PNG whose pixel (R, G, B) is the segment id R + 256 G + 65536 B."""

import contextlib
import importlib
import os
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils.file_io import PathManager
from PIL import Image

from .opencv import cv2_or_none
from .pixel_bound import pixel_bound
from .structures import UnreadableFileError

__all__ = [
    "id2rgb",
    "png_decoders",
    "read_panoptic_png",
    "read_panoptic_rgb",
    "read_panoptic_words",
    "rgb2id",
    "write_panoptic_png",
]

MAX_SEGMENT_ID = 256**3 - 1

_Pixels = npt.NDArray[np.uint8]
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_8_BIT_RGB = b"\x08\x02"  # bit depth 8, colour type 2


def rgb2id(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Segment ids of an RGB panoptic image.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        int32 (H, W), each in [0, 256³).

    Raises:
        ValueError: another dtype (sums of uint8 would wrap around) or shape.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"rgb2id needs a uint8 array of shape (H, W, 3), got {rgb.dtype} {rgb.shape}.")
    return _pixels2words(rgb) & MAX_SEGMENT_ID


def _pixels2words(pixels: _Pixels) -> npt.NDArray[np.int32]:
    """As :func:`rgb2id`, of pixels that may have a fourth byte without meaning, and so may the result."""
    height, width, channels = pixels.shape
    cv2 = cv2_or_none()
    if channels == 3 and cv2 is not None and pixels.size:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)
    elif channels == 3:
        # Every third byte starts a 4-byte word that holds one pixel and the next one's red.
        padded = np.zeros(pixels.size + 1, dtype=np.uint8)
        padded[:-1].reshape(pixels.shape)[...] = pixels
        overlapping: npt.NDArray[np.int32] = np.ndarray((height, width), "<i4", padded, strides=(3 * width, 3))
        return np.asarray(overlapping & MAX_SEGMENT_ID, dtype=np.int32)
    return np.asarray(pixels.view("<i4")[..., 0], dtype=np.int32)


def id2rgb(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """RGB panoptic image of segment ids; the inverse of :func:`rgb2id`.

    Args:
        ids: integers (H, W), each in [0, 256³).

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: ids of another shape, not integers, or out of range.
    """
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"id2rgb needs an integer array of shape (H, W), got {ids.dtype} {ids.shape}.")
    if ids.size and (ids.min() < 0 or ids.max() > MAX_SEGMENT_ID):
        raise ValueError(f"id2rgb needs ids in [0, {MAX_SEGMENT_ID}], got [{ids.min()}, {ids.max()}].")
    as_bytes = np.ascontiguousarray(ids, dtype="<u4").view(np.uint8)
    return np.ascontiguousarray(as_bytes.reshape(*ids.shape, 4)[..., :3])


def read_panoptic_rgb(path: str, decoder: str | None = None) -> npt.NDArray[np.uint8]:
    """Read a panoptic PNG as uint8 (H, W, 3) in RGB order.

    Args:
        path: the file, anything ``PathManager`` knows.
        decoder: a name of :func:`png_decoders`; None takes the first, the fastest one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no PNG, broken, or not 8-bit RGB (palette, gray, alpha, 16 bits), or no such decoder.
    """
    return np.ascontiguousarray(_read_pixels(path, decoder)[..., :3])


def read_panoptic_png(path: str, decoder: str | None = None) -> npt.NDArray[np.int32]:
    """Segment ids, int32 (H, W), of a panoptic PNG; arguments and errors as :func:`read_panoptic_rgb`."""
    return read_panoptic_words(path, decoder) & MAX_SEGMENT_ID


def read_panoptic_words(path: str, decoder: str | None = None) -> npt.NDArray[np.int32]:
    """As :func:`read_panoptic_png`, a pass over the image sooner: only the lowest 24 bits are the segment id, and
    the others may differ from pixel to pixel.
    """
    return _pixels2words(_read_pixels(path, decoder))


def _read_pixels(path: str, decoder: str | None) -> _Pixels:
    decoders = png_decoders()
    if decoder is not None and decoder not in decoders:
        raise ValueError(f"PNG decoder {decoder!r} is not importable here; there are {list(decoders)}.")
    local_path = PathManager.get_local_path(path)
    _check_header(path, local_path)
    try:
        return decoders[decoder or next(iter(decoders))](local_path)
    except Exception as error:  # each decoder has its own types
        raise UnreadableFileError(
            f"Panoptic PNG {path} cannot be decoded: the file is broken ({error}). Write it again."
        ) from error


def _check_header(path: str, local_path: str) -> None:
    try:
        with open(local_path, "rb", buffering=0) as f:
            header = f.read(26)  # signature 8, chunk head 8, width 4, height 4, bit depth 1, colour type 1
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"Panoptic PNG {path} does not exist.") from error
    if not header.startswith(_PNG_START):
        raise UnreadableFileError(
            f"Panoptic PNG {path} cannot be decoded: the file is broken or no PNG. Write it again."
        )
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    if (bound := pixel_bound()) is not None and width * height > bound:
        raise ValueError(
            f"Panoptic PNG {path} says that it has {width}×{height} px, more than the {bound:,} that are decoded "
            "without being asked to. If they are right, raise INPUT.MAX_IMAGE_PIXELS (--max-image-pixels)."
        )
    if header[24:] != _8_BIT_RGB:
        kinds = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}
        kind = f"{header[24]}-bit {kinds.get(header[25], '?')}" if len(header) == 26 else "a broken header"
        raise ValueError(
            f"Panoptic PNG {path} must be 8-bit RGB, got {kind}: save it so that a pixel is the id R + 256 G + 65536 B."
        )


@cache
def png_decoders() -> dict[str, Callable[[str], _Pixels]]:
    """The decoders of 8-bit RGB PNGs that can be imported here, by name, the fastest first.

    ``kornia_rs`` (Rust, three times as fast as the others), ``opencv``, ``pillow`` (always there). Each makes uint8
    (H, W, 3 or 4) of a local path, RGB and perhaps a byte without meaning, of which ids are made sooner.
    """
    decoders: dict[str, Callable[[str], _Pixels]] = {}
    for module in ("kornia_rs.io", "kornia_rs"):  # where it is now, and where it was in version 0.1
        with contextlib.suppress(ImportError, AttributeError):
            read = importlib.import_module(module).read_image_png_u8
            decoders.setdefault("kornia_rs", partial(_decode_with_rust, read))
    if cv2_or_none() is not None:
        decoders["opencv"] = _decode_with_opencv
    decoders["pillow"] = _decode_with_pillow
    return decoders


def _decode_with_rust(read: Callable[[str, str], Any], path: str) -> _Pixels:
    return np.asarray(read(path, "rgb"))


def _decode_with_opencv(path: str) -> _Pixels:
    cv2 = cv2_or_none()
    in_rgb_order = hasattr(cv2, "IMREAD_COLOR_RGB")  # since OpenCV 4.10
    flag = cv2.IMREAD_COLOR_RGB if in_rgb_order else cv2.IMREAD_COLOR
    image = cv2.imread(path, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("OpenCV cannot read it")
    return np.asarray(image if in_rgb_order else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _decode_with_pillow(path: str) -> _Pixels:
    with Image.open(path) as image:
        data = image.tobytes("raw", "RGBX")  # as Pillow itself stores it: less work than np.asarray(image)
        return np.frombuffer(data, dtype=np.uint8).reshape(image.height, image.width, 4)


def write_panoptic_png(path: str, ids: npt.NDArray[np.integer]) -> None:
    """Write segment ids (H, W) as a panoptic PNG, in a local folder as a whole or not at all.

    Raises:
        ValueError: as :func:`id2rgb`.
        OSError: the file cannot be written; what was there under this name stays.
    """
    rgb, data = id2rgb(ids), BytesIO()
    cv2 = cv2_or_none()
    if cv2 is None:
        Image.fromarray(rgb).save(data, format="PNG")
    else:
        encoded, buffer = cv2.imencode(".png", rgb[..., ::-1])
        if not encoded:
            raise OSError(f"Could not encode the panoptic map for {path}.")
        data.write(buffer)
    if "://" in path:  # of detectron2's PathManager, which cannot rename
        with PathManager.open(path, "wb") as f:
            f.write(data.getvalue())
        return
    unfinished = f"{path}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "wb") as f:
            f.write(data.getvalue())
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise
