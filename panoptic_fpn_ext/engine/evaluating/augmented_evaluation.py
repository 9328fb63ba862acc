"""Test-time augmentation in runs: which model sees the views, and what its results are called."""

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import print_csv_format
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from torch import nn

from ...data import PanopticDatasetMapper
from ...modeling import PanopticFPNExt, PanopticFPNWithTTA

__all__ = ["as_augmented", "augmented_model", "own_size_mapper", "print_results", "say_augmented"]

logger = logging.getLogger(__name__)


def augmented_model(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """A model with ``TEST.AUG``: this package's for panoptic networks, detectron2's for a Mask R-CNN alone.

    Raises:
        ValueError: any other model.
    """
    plain = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    if isinstance(plain, PanopticFPNExt):
        return PanopticFPNWithTTA(cfg, plain)
    if not isinstance(plain, GeneralizedRCNN):
        raise ValueError(
            f"TEST.AUG.ENABLED is for a PanopticFPNExt or a GeneralizedRCNN, not for a {type(plain).__name__}. "
            "Set it to False."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = plain.roi_heads.num_classes  # the view of a LazyConfig does not have it
    return GeneralizedRCNNWithTTA(cfg, plain, batch_size=1)


def own_size_mapper(cfg: CfgNode) -> PanopticDatasetMapper:
    """A mapper that gives images at their own size: each view is made of the image itself, not of a resized copy."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 0
    return PanopticDatasetMapper(cfg, is_train=False)


def say_augmented() -> None:
    """Head what an evaluation with views prints, which is otherwise as that of the plain results."""
    logger.info("With the views of TEST.AUG (results panoptic_seg_TTA, sem_seg_TTA, …):")


def print_results(results: Mapping[str, Any], dataset_name: str, *, augmented: bool) -> None:
    """Print what detectron2's tools print of an evaluation, under the names of :func:`as_augmented` if it is one."""
    # Of the logger that prints what follows, which goes to the log only.
    logging.getLogger(print_csv_format.__module__).info(f"Evaluation results for {dataset_name} in csv format:")
    print_csv_format(as_augmented(results) if augmented else results)


def as_augmented(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results under detectron2's names for them: ``panoptic_seg_TTA`` for ``panoptic_seg``."""
    return {f"{name}_TTA": values for name, values in results.items()}
