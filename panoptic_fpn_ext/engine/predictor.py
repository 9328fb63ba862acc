"""A model and its weights as a function of one image."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from ..data.images import to_input_format, to_planes
from ..data.nonempty import NonemptyResizeShortestEdge
from ..data.panoptic_catalog import is_panoptic
from .checkpoint import PanopticCheckpointer
from .checks import check_head_sizes, check_input_format, prediction_dataset
from .device import use_available_device
from .options import check_options
from .setup import register_categories
from .silent_settings import warn_of_settings

__all__ = ["PanopticPredictor"]


class PanopticPredictor:
    """detectron2's `DefaultPredictor`, except that weights which do not fit the model are an error.

    Attributes:
        metadata: names and colours of the classes, those of the first dataset of ``DATASETS.TEST``.
        model: in evaluation mode; it may be moved to any device.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build the model of ``cfg`` and load ``MODEL.WEIGHTS``; ``cfg`` is not changed.

        Raises:
            FileNotFoundError: there is no such file of weights.
            ValueError: options that cannot work, no weights or those of another architecture, head sizes that do not
                fit the dataset.
        """
        check_input_format(cfg)
        cfg = cfg.clone()
        use_available_device(cfg)
        check_options(cfg, training=False)
        register_categories([])
        self.metadata = MetadataCatalog.get(prediction_dataset(cfg))
        if is_panoptic(self.metadata.name):
            check_head_sizes(cfg, self.metadata.name)
        warn_of_settings(cfg, [self.metadata.name])
        self.model = build_model(cfg).eval()
        PanopticCheckpointer(self.model, complete=True).load(cfg.MODEL.WEIGHTS)
        self._resize = NonemptyResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self._input_format = cfg.INPUT.FORMAT

    def __call__(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Predict one image.

        Args:
            image: uint8 (H, W, 3) in BGR order, as OpenCV and detectron2's `read_image(path, "BGR")` give it.

        Returns:
            The model's output for this image, at its size: ``panoptic_seg``, ``instances``, ``sem_seg``.

        Raises:
            ValueError: another dtype or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"PanopticPredictor needs a uint8 image of shape (H, W, 3), got {image.dtype} {image.shape}."
            )
        height, width = image.shape[:2]
        image = to_input_format(image, self._input_format)
        resized = self._resize.get_transform(image).apply_image(image)
        tensor = to_planes(resized)
        with torch.no_grad():
            return self.model([{"image": tensor, "height": height, "width": width}])[0]
