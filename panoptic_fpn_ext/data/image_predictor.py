"""What all predictors share: the ways to give images, and names in the result."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from detectron2.data import Metadata
from PIL import Image

from ..image_files import read_image

__all__ = ["AnyImage", "FailedImagesError", "ImagePredictor", "StreamedImage"]

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


class StreamedImage(NamedTuple):
    """An image of :meth:`ImagePredictor.stream`.

    Attributes:
        number: its place among the images, from 0.
        image: uint8 (H, W, 3) in BGR order, None where it could not be read.
        output: the model's, None where it failed.
        error: why, None where it did not.
    """

    number: int
    image: npt.NDArray[np.uint8] | None = None
    output: dict[str, Any] | None = None
    error: Exception | None = None


class _Ready(NamedTuple):
    number: int
    image: npt.NDArray[np.uint8]
    prepared: Any


class ImagePredictor(ABC):
    """A function of images: arrays, Pillow's, files, or lists of these.

    Attributes:
        metadata: names and colours of the classes.
        batch_size: how many images of a list are predicted at once, where they become network inputs of one size.
    """

    metadata: Metadata
    batch_size: int = 1

    @abstractmethod
    def _predict(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """detectron2's outputs of an image, uint8 (H, W, 3) in BGR order."""

    def _prepare(self, image: npt.NDArray[np.uint8]) -> Any:
        """What can be done with an image while another one is predicted."""
        return image

    def _input_size(self, prepared: Any) -> Hashable:
        """Images with equal ones can be predicted at once, with the results that they have alone."""
        return None

    def _predict_batch(self, prepared: list[Any]) -> list[dict[str, Any]]:
        """:meth:`_predict` for what :meth:`_prepare` made of some images of one size."""
        return [self._predict(one) for one in prepared]

    @overload
    def __call__(self, image: AnyImage) -> dict[str, Any]: ...

    @overload
    def __call__(self, image: list[AnyImage] | tuple[AnyImage, ...]) -> list[dict[str, Any]]: ...

    def __call__(self, image: Any) -> Any:
        """Predict an image or those of a list, the latter as :meth:`stream` does.

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
        return self._with_names(self._predict(self._read(image)))

    def stream(self, images: Iterable[AnyImage], batch_size: int | None = None) -> Iterator[StreamedImage]:
        """Predict images while the next ones are read.

        A batch has images of one size, padding included, so that no result depends on what else is in it. Few images
        are held at a time, however many there are.

        Args:
            images: as :meth:`__call__` takes them.
            batch_size: how many are predicted at once; by default the predictor's.

        Yields:
            Each image, with its output or why it failed; with batches not always in order.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size must be at least 1, got {size}.")
        waiting: dict[Hashable, list[_Ready]] = {}
        for one in _read_ahead(self._ready, images, 2 * size):
            if isinstance(one, StreamedImage):
                yield one
                continue
            key = self._input_size(one.prepared)
            waiting.setdefault(key, []).append(one)
            if len(waiting[key]) == size or sum(map(len, waiting.values())) >= 4 * size:
                yield from self._predict_ready(waiting.pop(max(waiting, key=lambda key: len(waiting[key]))))
        for batch in waiting.values():
            yield from self._predict_ready(batch)

    def _read(self, image: Any) -> npt.NDArray[np.uint8]:
        array: Any = image if isinstance(image, np.ndarray) else read_image(image, "BGR")
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
            raise ValueError(
                f"{type(self).__name__} needs a uint8 image of shape (H, W, 3), got {array.dtype} {array.shape}."
            )
        checked: npt.NDArray[np.uint8] = array
        return checked

    def _ready(self, index: int, image: Any) -> "_Ready | StreamedImage":
        try:
            array = self._read(image)
            return _Ready(index, array, self._prepare(array))
        except Exception as error:  # whatever it is, the other images are spared
            return StreamedImage(index, error=error)

    def _predict_ready(self, batch: list[_Ready]) -> Iterator[StreamedImage]:
        try:
            outputs = self._predict_batch([one.prepared for one in batch])
        except Exception as error:  # as above
            if len(batch) > 1:  # which one?
                for one in batch:
                    yield from self._predict_ready([one])
            else:
                yield StreamedImage(batch[0].number, batch[0].image, error=error)
            return
        for one, output in zip(batch, outputs, strict=True):
            yield StreamedImage(one.number, one.image, self._with_names(output))

    def _predict_all(self, images: list[Any]) -> list[dict[str, Any] | None]:
        found = sorted(self.stream(images), key=lambda one: one.number)
        outputs = [one.output for one in found]
        errors = {one.number: one.error for one in found if one.error is not None}
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


def _read_ahead(read: Any, images: Iterable[Any], most: int) -> Iterator[Any]:
    """What a function makes of images, in order, each made by a thread while the ones before it are used."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque[Future[Any]] = deque()
        try:
            for index, image in enumerate(images):
                coming.append(pool.submit(read, index, image))
                if len(coming) > most:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
