"""Which weights of `timm` a run begins with, recorded in its config."""

import logging

from detectron2.config import CfgNode, get_cfg

from ...modeling.backbone.timm_features import timm_weights

__all__ = ["record_timm_weights"]

logger = logging.getLogger(__name__)


def record_timm_weights(cfg: CfgNode) -> None:
    """Put the tag of pretrained weights into ``MODEL.TIMM.NAME``, and the pixels that they know where nobody did.

    ``INPUT.FORMAT``, ``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD`` are set where all three are detectron2's defaults.
    Nothing changes where ``MODEL.WEIGHTS`` says how the model was trained.

    Args:
        cfg: is changed.

    Raises:
        ImportError, ValueError: as :func:`~panoptic_fpn_ext.modeling.backbone.timm_features.timm_weights`.
    """
    model = cfg.MODEL
    if model.BACKBONE.NAME != "build_timm_fpn_backbone" or not model.TIMM.PRETRAINED or model.WEIGHTS:
        return
    weights, default = timm_weights(model.TIMM.NAME), get_cfg()
    model.TIMM.NAME = weights.name
    given = (cfg.INPUT.FORMAT, list(model.PIXEL_MEAN), list(model.PIXEL_STD))
    if given == (default.INPUT.FORMAT, list(default.MODEL.PIXEL_MEAN), list(default.MODEL.PIXEL_STD)):
        cfg.INPUT.FORMAT, model.PIXEL_MEAN, model.PIXEL_STD = "RGB", weights.pixel_mean, weights.pixel_std
    logger.info(f"Pretrained weights: {weights.name}, for {cfg.INPUT.FORMAT} pixels, mean {list(model.PIXEL_MEAN)}.")
