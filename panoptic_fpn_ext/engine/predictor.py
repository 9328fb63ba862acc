"""A model and its weights as a function of images."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from ..data.images import read_image, to_input_format, to_planes
from ..data.nonempty import NonemptyResizeShortestEdge
from ..data.panoptic_catalog import COCO_PANOPTIC, class_metadata
from .checkpoint import PanopticCheckpointer
from .checks import check_input_format, prediction_dataset
from .device import use_available_device
from .model_categories import CategorySource
from .model_files import checkpoint_path
from .options import check_options
from .setup import complete_prediction_config, read_config, register_categories
from .silent_settings import warn_of_settings

__all__ = ["FailedImagesError", "PanopticPredictor"]

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


class PanopticPredictor:
    """detectron2's `DefaultPredictor` with more ways to name a model and to give images, and with names in the result.

    Weights that do not fit the model are an error.

    Attributes:
        metadata: names and colours of the classes: those that the checkpoint records, else those of the first dataset
            of ``DATASETS.TEST``.
        model: in evaluation mode; it may be moved to any device.
    """

    def __init__(self, model: CfgNode | str, weights: str = "") -> None:
        """Build a model and load its weights.

        Args:
            model: a config, which is not changed, or a name that
                :func:`~panoptic_fpn_ext.engine.model_files.find_model` knows: a config of the zoo, a checkpoint with
                its ``config.yaml`` beside it, the folder of both, or a config file.
            weights: instead of the config's ``MODEL.WEIGHTS`` or what comes with the name.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: options that cannot work, no weights or those of another architecture, categories or head
                sizes that do not fit.
            KeyError: neither checkpoint nor config tell the categories.
        """
        cfg = model.clone() if isinstance(model, CfgNode) else read_config(model, [], trained=True)
        check_input_format(cfg)
        cfg.defrost()
        cfg.MODEL.WEIGHTS = checkpoint_path(weights or cfg.MODEL.WEIGHTS)
        use_available_device(cfg)
        check_options(cfg, training=False)
        register_categories([])
        self.metadata = _metadata(cfg, complete_prediction_config(cfg))
        warn_of_settings(cfg, (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1])
        self.model = build_model(cfg).eval()
        PanopticCheckpointer(self.model, complete=True).load(cfg.MODEL.WEIGHTS)
        self._resize = NonemptyResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self._input_format = cfg.INPUT.FORMAT

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
                f"PanopticPredictor needs a uint8 image of shape (H, W, 3), got {image.dtype} {image.shape}."
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

    def _predict(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        height, width = image.shape[:2]
        image = to_input_format(image, self._input_format)
        resized = self._resize.get_transform(image).apply_image(image)
        tensor = to_planes(resized)
        with torch.no_grad():
            output: dict[str, Any] = self.model([{"image": tensor, "height": height, "width": width}])[0]
        return output

    def _with_names(self, output: dict[str, Any]) -> dict[str, Any]:
        if "panoptic_seg" not in output:
            return output
        panoptic_seg, segments_info = output["panoptic_seg"]
        return {**output, "panoptic_seg": (panoptic_seg, [{**s, "name": self._name(s)} for s in segments_info])}

    def _name(self, segment: Mapping[str, Any]) -> str:
        classes = self.metadata.thing_classes if segment["isthing"] else self.metadata.stuff_classes
        return str(classes[segment["category_id"]])


def _metadata(cfg: CfgNode, source: CategorySource | None) -> Metadata:
    """What detectron2's visualiser and this package's writers read, of the categories that a model predicts."""
    if source is None:
        return MetadataCatalog.get(prediction_dataset(cfg))
    name = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN, cfg.MODEL.WEIGHTS)[0]
    return Metadata(name=name, **class_metadata(source.categories, COCO_PANOPTIC))
