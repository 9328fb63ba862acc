"""A model and its weights as a function of images."""

import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..console import quiet_dependencies
from ..data.image_predictor import FailedImagesError, ImagePredictor
from ..data.nonempty import NonemptyResizeShortestEdge, nonempty
from ..data.panoptic_catalog import COCO_PANOPTIC, class_metadata
from ..data.planes import to_planes
from ..image_files import to_input_format
from .checkpoints.checkpoint import PanopticCheckpointer
from .checkpoints.model_categories import CategorySource
from .checkpoints.model_files import checkpoint_path
from .checks import check_input_format, prediction_dataset
from .data_descriptions import register_categories
from .device import available_device, use_available_device
from .evaluating.augmented_evaluation import augmented_model
from .lazy_config import complete_lazy_prediction_config, read_lazy_config
from .lazy_training import build_lazy_model
from .lazy_values import dataset_names
from .settings.config_keys import is_lazy_config
from .settings.options import check_options
from .settings.silent_settings import warn_of_settings
from .settings.yacs_view import yacs_view
from .setup import complete_prediction_config, read_config

__all__ = ["FailedImagesError", "PanopticPredictor"]


class PanopticPredictor(ImagePredictor):
    """detectron2's `DefaultPredictor` with more ways to name a model and to give images, and with names in the result.

    Weights that do not fit the model are an error.

    Attributes:
        metadata: names and colours of the classes: those that the checkpoint records, else those of the first dataset
            of ``DATASETS.TEST``.
        model: in evaluation mode; it may be moved to any device. With ``TEST.AUG.ENABLED`` a
            :class:`~panoptic_fpn_ext.modeling.PanopticFPNWithTTA`.
        batch_size: how many images of a list are predicted at once, where they become network inputs of one size.
    """

    def __init__(self, model: CfgNode | DictConfig | str, weights: str = "", *, batch_size: int = 1) -> None:
        """Build a model and load its weights.

        Args:
            model: a config, yacs or lazy, which is not changed, or a name that
                :func:`~panoptic_fpn_ext.engine.checkpoints.model_files.find_model` knows: a config of the zoo, a
                checkpoint with its ``config.yaml`` beside it, the folder of both, or a config file. A LazyConfig, whose
                ``_target_`` are called, must be named itself.
            weights: instead of the config's ``MODEL.WEIGHTS`` (``train.init_checkpoint``) or what comes with the name.
            batch_size: see the attribute.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: options that cannot work, no weights or those of another architecture, categories or head
                sizes that do not fit.
            KeyError: neither checkpoint nor config tell the categories.
        """
        quiet_dependencies()
        self.batch_size = batch_size
        if isinstance(model, str):
            if is_lazy_config(model):
                model = read_lazy_config(model, [], [], trained=True, predicting=True)
            else:
                model = read_config(model, [], trained=True)
        parts = _parts_of_lazy(model, weights) if isinstance(model, DictConfig) else _parts_of_yacs(model, weights)
        self.model, self.metadata, self._augmentations, self._input_format = parts

    def _predict(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        return self._predict_batch([self._prepare(image)])[0]

    def _prepare(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        height, width = image.shape[:2]
        image = to_input_format(image, self._input_format)
        seen = T.AugInput(image)
        self._augmentations(seen)
        return {"image": to_planes(seen.image), "height": height, "width": width}

    def _input_size(self, prepared: dict[str, Any]) -> tuple[int, int]:
        """Height and width, padding included."""
        backbone: Any = getattr(self.model, "backbone", None)
        if backbone is None:  # test-time augmentation, which takes one view of one image at a time
            return prepared["height"], prepared["width"]
        image = torch.empty(1, *prepared["image"].shape[1:], device="meta")
        constraints = backbone.padding_constraints
        padded = ImageList.from_tensors([image], backbone.size_divisibility, padding_constraints=constraints).tensor
        return padded.shape[-2], padded.shape[-1]

    def _predict_batch(self, prepared: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with torch.no_grad():
            outputs: list[dict[str, Any]] = self.model(prepared)
        return outputs


class _Parts(NamedTuple):
    model: nn.Module
    metadata: Metadata
    augmentations: T.AugmentationList
    input_format: str


def _parts_of_yacs(cfg: CfgNode, weights: str) -> _Parts:
    cfg = cfg.clone()
    check_input_format(cfg)
    cfg.defrost()
    cfg.MODEL.WEIGHTS = checkpoint_path(weights or cfg.MODEL.WEIGHTS)
    use_available_device(cfg)
    check_options(cfg, training=False)
    register_categories([])
    source = complete_prediction_config(cfg)
    metadata = _metadata(cfg, source)
    has_things = None if source is None else source.categories.num_things > 0
    warn_of_settings(cfg, (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1], has_things=has_things)
    model = build_model(cfg).eval()
    PanopticCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    if cfg.TEST.AUG.ENABLED:
        model = augmented_model(cfg, model).eval()
        cfg.INPUT.MIN_SIZE_TEST = 0  # each view is made of the image itself
    resize = NonemptyResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    return _Parts(model, metadata, T.AugmentationList([resize]), cfg.INPUT.FORMAT)


def _parts_of_lazy(cfg: DictConfig, weights: str) -> _Parts:
    cfg = copy.deepcopy(cfg)
    cfg.train.init_checkpoint = checkpoint_path(weights or cfg.train.init_checkpoint)
    cfg.train.device = available_device(cfg.train.device)
    register_categories([])
    source = complete_lazy_prediction_config(cfg)
    view = yacs_view(cfg)
    view.cfg.DATASETS.TEST, view.cfg.MODEL.WEIGHTS = tuple(dataset_names(cfg, "test")), cfg.train.init_checkpoint
    has_things = None if source is None else source.categories.num_things > 0
    warn_of_settings(view.cfg, view.cfg.DATASETS.TEST[:1], has_things=has_things, names=view.names)
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper", default=None)
    if mapper is None:
        raise KeyError("The LazyConfig lacks dataloader.test.mapper, whose augmentations and image_format predict too.")
    model = build_lazy_model(cfg).eval()
    PanopticCheckpointer(model, complete=True).load(cfg.train.init_checkpoint)
    augmentations = [nonempty(augmentation) for augmentation in instantiate(mapper.augmentations)]
    if cfg.train.get("test_aug", {}).get("enabled", False):
        model, augmentations = augmented_model(view.cfg, model).eval(), []  # views are made of the image itself
    return _Parts(
        model, _metadata(view.cfg, source), T.AugmentationList(augmentations), mapper.get("image_format", "BGR")
    )


def _metadata(cfg: CfgNode, source: CategorySource | None) -> Metadata:
    """What detectron2's visualiser and this package's writers read, of the categories that a model predicts."""
    if source is None:
        return MetadataCatalog.get(prediction_dataset(cfg))
    name = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN, cfg.MODEL.WEIGHTS)[0]
    return Metadata(name=name, **class_metadata(source.categories, COCO_PANOPTIC))
