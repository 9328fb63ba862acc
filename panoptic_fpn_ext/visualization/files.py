"""Images as files, as a whole or not at all."""

import contextlib
import os

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["save_image"]


def save_image(path: "str | os.PathLike[str]", image: npt.NDArray[np.uint8], **options: object) -> None:
    """Write an image; until it is finished nobody sees it under its name.

    Args:
        path: a local file, whose suffix says the format.
        image: uint8 (H, W, 3), RGB.
        options: Pillow's, of the format.

    Raises:
        ValueError: Pillow cannot write such a suffix.
        OSError: the file cannot be written; what was there under this name stays.
    """
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    image_format = Image.registered_extensions().get(suffix)
    if image_format is None:
        raise ValueError(f"{path} has no suffix of an image that can be written, as .png or .jpg.")
    unfinished = path + ".tmp"
    try:
        Image.fromarray(image).save(unfinished, format=image_format, **options)
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise
