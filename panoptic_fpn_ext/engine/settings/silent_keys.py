"""Config keys that empty the result whatever the dataset; `silent_settings.py` asks.

A check yields what to say: the key, what comes of it, and a value that would fit.
"""

from collections.abc import Callable, Iterator
from typing import Final

from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ...modeling import PanopticFPNSemSegHead
from .model_outputs import predicts

__all__ = ["OF_PREDICTION", "OF_TRAINING"]

_COMBINE = "MODEL.PANOPTIC_FPN.COMBINE"


def _score_thresholds(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    instances, semantics = predicts(cfg)
    if not (instances and has_things):
        return
    found, kept = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH
    if found >= 1:
        yield (
            f"MODEL.ROI_HEADS.SCORE_THRESH_TEST is {found:g}, and scores are below 1: no instance is ever detected. "
            "Set it to 0.05."
        )
    if semantics and kept >= 1:
        yield (
            f"{_COMBINE}.INSTANCES_CONFIDENCE_THRESH is {kept:g}, and scores are below 1: no instance ever enters the "
            "panoptic map. Set it to 0.5."
        )
    if semantics and kept < found < 1:
        yield (
            f"MODEL.ROI_HEADS.SCORE_THRESH_TEST is {found:g}, above {_COMBINE}.INSTANCES_CONFIDENCE_THRESH {kept:g}: "
            f"detections between the two are lost before the panoptic map. Set the former to at most {kept:g}."
        )


def _overlaps(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    instances, semantics = predicts(cfg)
    overlap = cfg.MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH
    if instances and semantics and not 0 <= overlap < 1:
        effect = "no instance ever enters the panoptic map" if overlap < 0 else "covered instances are never dropped"
        yield f"{_COMBINE}.OVERLAP_THRESH is {overlap:g}, a fraction: {effect}. Set it to 0.5."
    if not instances:
        return
    nms = {"MODEL.ROI_HEADS.NMS_THRESH_TEST": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST}
    nms["MODEL.RPN.NMS_THRESH"] = cfg.MODEL.RPN.NMS_THRESH
    for (key, value), fits in zip(nms.items(), (0.5, 0.7), strict=True):
        if not 0 < value <= 1:
            effect = "boxes that only touch suppress each other" if value <= 0 else "no box suppresses another"
            yield f"{key} is {value:g}, an IoU: {effect}. Set it to {fits}."


def _augmented_sizes(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    sizes, plain = list(cfg.TEST.AUG.MIN_SIZES), cfg.INPUT.MIN_SIZE_TEST
    if cfg.TEST.AUG.ENABLED and plain and sizes and not min(sizes) <= plain <= max(sizes):
        fits = ", ".join(str(round(plain * factor)) for factor in (0.8, 1, 1.2))
        yield (
            f"TEST.AUG.MIN_SIZES are from {min(sizes)} to {max(sizes)} px, and INPUT.MIN_SIZE_TEST is {plain}: no view "
            f"has the size that the model predicts best at. Set it to ({fits})."
        )
    longest, plain = cfg.TEST.AUG.MAX_SIZE, cfg.INPUT.MAX_SIZE_TEST
    if cfg.TEST.AUG.ENABLED and 0 < longest < plain:
        yield (
            f"TEST.AUG.MAX_SIZE is {longest} and INPUT.MAX_SIZE_TEST {plain}: of long images no view is as large "
            f"as the image without them. Set it to {round(plain * 1.2)}."
        )


def _schedule(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    warmup, iterations = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if warmup >= iterations > 100:  # shorter runs only try whether all works
        yield (
            f"SOLVER.WARMUP_ITERS is {warmup} of SOLVER.MAX_ITER {iterations} iterations: the learning rate never "
            f"reaches SOLVER.BASE_LR. Set it to {max(1, iterations // 20)}."
        )


def _losses(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    instances, semantics = predicts(cfg)
    model = cfg.MODEL
    if semantics and model.SEM_SEG_HEAD.LOSS_WEIGHT == 0:
        yield "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT is 0: stuff is not learnt. Set it to 1.0."
    jaccard, head = model.SEM_SEG_HEAD.get("JACCARD_LOSS_WEIGHT", 0.0), model.SEM_SEG_HEAD.NAME
    if semantics and jaccard and not _is_own(head):
        yield (
            f"MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT is {jaccard:g} and MODEL.SEM_SEG_HEAD.NAME {head}, which does not "
            "read it. Set it to 0.0, or take PanopticFPNSemSegHead."
        )
    if not (instances and has_things):
        return
    if semantics and model.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT == 0:
        yield "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT is 0: classes and masks of things are not learnt. Set it to 1.0."
    sampled: list[tuple[str, str, float]] = [("RPN", "LOSS_WEIGHT", 1.0), ("RPN", "BATCH_SIZE_PER_IMAGE", 256)]
    sampled += [("RPN", "POSITIVE_FRACTION", 0.5), ("ROI_HEADS", "BATCH_SIZE_PER_IMAGE", 512)]
    sampled += [("ROI_HEADS", "POSITIVE_FRACTION", 0.25)]
    for part, key, fits in sampled:
        if model[part][key] <= 0:
            yield f"MODEL.{part}.{key} is {model[part][key]:g}: things are not learnt. Set it to {fits}."


def _is_own(head: str) -> bool:
    """Whether a semantic head of this name is this package's or derived from it."""
    kind = SEM_SEG_HEADS_REGISTRY.get(head) if head in SEM_SEG_HEADS_REGISTRY else None
    return isinstance(kind, type) and issubclass(kind, PanopticFPNSemSegHead)


def _random_weights(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    frozen = cfg.MODEL.BACKBONE.FREEZE_AT
    if frozen > 0 and not cfg.MODEL.WEIGHTS:
        yield (
            f"MODEL.BACKBONE.FREEZE_AT is {frozen} and MODEL.WEIGHTS is empty: these stages keep random weights unless "
            "the run is resumed. Set MODEL.BACKBONE.FREEZE_AT to 0, or MODEL.WEIGHTS to a pre-trained backbone."
        )
    backbone = cfg.MODEL.BACKBONE.NAME
    for part, name in (("EFFICIENTNET_LITE", "efficientnet"), ("RESNETS", "resnet")):
        if name in backbone and cfg.MODEL[part].NORM == "FrozenBN" and not cfg.MODEL.WEIGHTS:
            yield (
                f"MODEL.{part}.NORM is FrozenBN and MODEL.WEIGHTS is empty: constant statistics of no training "
                "normalise nothing unless the run is resumed. Set it to BN."
            )


def _stochastic_depth(cfg: CfgNode, has_things: bool) -> Iterator[str]:
    rate, backbone = cfg.MODEL.get("EFFICIENTNET_LITE", {}).get("DROP_PATH_RATE", 0.0), cfg.MODEL.BACKBONE.NAME
    if rate and "efficientnet" not in backbone:
        yield (
            f"MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE is {rate:g} and MODEL.BACKBONE.NAME {backbone}: no block is "
            "dropped. Set it to 0.0, or take an EfficientNet-Lite."
        )


OF_PREDICTION: Final[tuple[Callable[[CfgNode, bool], Iterator[str]], ...]] = (
    _score_thresholds,
    _overlaps,
    _augmented_sizes,
)
OF_TRAINING: Final[tuple[Callable[[CfgNode, bool], Iterator[str]], ...]] = (
    _schedule,
    _losses,
    _random_weights,
    _stochastic_depth,
)
