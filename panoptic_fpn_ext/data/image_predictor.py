"""What all predictors share: the ways to give images, and names in the result."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from detectron2.data import Metadata
from PIL import Image

from .images import read_image

__all__ = ["AnyImage", "FailedImagesError", "ImagePredictor"]

AnyImage: TypeAlias = "npt.NDArray[np.uint8] | Image.Image | str | os.PathLike[str]"


class FailedImagesError(ValueError):
    """Some images of a list could not be read or predicted; the others were.

    Attributes:
        outputs: of all images of the list, in its order; None for those that failed.
        errors: why, by the place in the list.
    """

    def __init__(self, outputs: list[dict[str, Any] | None], errors: dict[int, Exception], images: list[Any]) -> None:
        self.outputs, self.errors = outputs, errors
        lines = [f"  - {_failure(images[index], index, error)}" for index, error in errors.items()]
        super().__init__(
            f"{len(errors)} of {len(outputs)} images could not be read or predicted; the outputs of the others are in "
            "`outputs` of this error:\n" + "\n".join(lines)
        )


def _failure(image: Any, index: int, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else str(getattr(image, "filename", ""))
    return f"image {index}: {reason}" if not path or path in reason else f"image {index}, {path}: {reason}"


class ImagePredictor(ABC):
    """A function of images: arrays, Pillow's, files, or lists of these.

    Attributes:
        metadata: names and colours of the classes.
    """

    metadata: Metadata

    @abstractmethod
    def _predict(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """detectron2's outputs of an image, uint8 (H, W, 3) in BGR order."""

    @overload
    def __call__(self, image: AnyImage) -> dict[str, Any]: ...

    @overload
    def __call__(self, image: list[AnyImage] | tuple[AnyImage, ...]) -> list[dict[str, Any]]: ...

    def __call__(self, image: Any) -> Any:
        """Predict an image or, one after the other, those of a list.

        Args:
            image: uint8 (H, W, 3) in BGR order, as OpenCV and detectron2's `read_image(path, "BGR")` give it; an image
                of Pillow's; a path; or a list of these.

        Returns:
            The model's output for the image, at its size: ``panoptic_seg``, ``instances``, ``sem_seg``; each of
            ``segments_info`` has a ``name`` too. Of a list, a list.

        Raises:
            FileNotFoundError, ValueError: no such file, no image, or an array of another dtype or shape.
            FailedImagesError: that, or whatever else, with images of a list. The others are predicted first, and the
                error has their outputs.
        """
        if isinstance(image, (list, tuple)):
            return self._predict_all(list(image))
        if not isinstance(image, np.ndarray):
            image = read_image(image, "BGR")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"{type(self).__name__} needs a uint8 image of shape (H, W, 3), got {image.dtype} {image.shape}."
            )
        return self._with_names(self._predict(image))

    def _predict_all(self, images: list[Any]) -> list[dict[str, Any] | None]:
        outputs: list[dict[str, Any] | None] = [None] * len(images)
        errors: dict[int, Exception] = {}
        for index, image in enumerate(images):
            try:
                outputs[index] = self(image)
            except Exception as error:  # whatever it is, the other images are spared
                errors[index] = error
        if errors:
            raise FailedImagesError(outputs, errors, images)
        return outputs

    def _with_names(self, output: dict[str, Any]) -> dict[str, Any]:
        if "panoptic_seg" not in output:
            return output
        panoptic_seg, segments_info = output["panoptic_seg"]
        return {**output, "panoptic_seg": (panoptic_seg, [{**s, "name": self._name(s)} for s in segments_info])}

    def _name(self, segment: Mapping[str, Any]) -> str:
        classes = self.metadata.thing_classes if segment["isthing"] else self.metadata.stuff_classes
        return str(classes[segment["category_id"]])
