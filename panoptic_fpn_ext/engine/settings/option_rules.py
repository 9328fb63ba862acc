"""Values of config keys that are wrong beside other keys; `options.py` applies them."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from fvcore.common.registry import Registry

from ...modeling import PanopticFPNExt
from ...modeling.combiner.din_unary import DEFAULT_WEIGHTS, checked_weights
from ...structures import IGNORE_LABEL, LARGE_IGNORE_LABEL
from .model_outputs import WITHOUT_ROI_HEADS, WITHOUT_SEM_SEG_HEAD, measured_tasks

__all__ = ["COMBINATIONS", "Found", "unregistered"]

Found = Iterator[tuple[str, Any, str]]
"""Key, value, and what is wrong with it and fits."""


def unregistered(name: Any, registry: Registry) -> str:
    """Why a name is wrong that no class is registered under."""
    known = sorted(key for key, _ in registry)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"no class of this name is registered{hint}; there are {', '.join(known)}"


def _device(cfg: CfgNode) -> Found:
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError:
        yield "MODEL.DEVICE", cfg.MODEL.DEVICE, "it must be a device of PyTorch, such as cuda, cuda:1 or cpu"


def _train_sizes(cfg: CfgNode) -> Found:
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if not sizes or any(size < 0 for size in sizes):
        yield "INPUT.MIN_SIZE_TRAIN", sizes, "it needs at least one size in px, 0 for that of the image"
    elif cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sizes) != 2:
        yield "INPUT.MIN_SIZE_TRAIN", sizes, "INPUT.MIN_SIZE_TRAIN_SAMPLING 'range' draws between exactly two sizes"


def _crops(cfg: CfgNode) -> Found:
    kind, size = cfg.INPUT.CROP.TYPE, list(cfg.INPUT.CROP.SIZE)
    if len(size) != 2:
        yield "INPUT.CROP.SIZE", size, "it must be a height and a width"
    elif kind.startswith("relative") and not all(0 < s <= 1 for s in size):
        yield "INPUT.CROP.SIZE", size, f"INPUT.CROP.TYPE {kind!r} takes shares of the image, above 0 to 1"
    elif kind.startswith("absolute") and not all(s == int(s) and s >= 1 for s in size):
        yield "INPUT.CROP.SIZE", size, f"INPUT.CROP.TYPE {kind!r} takes whole pixels"
    elif kind == "absolute_range" and size[0] > size[1]:
        yield "INPUT.CROP.SIZE", size, "INPUT.CROP.TYPE 'absolute_range' takes the least and the largest side"


def _networks(cfg: CfgNode) -> Found:
    model, panoptic = cfg.MODEL, _is_panoptic(cfg)
    if panoptic and not model.MASK_ON:
        yield "MODEL.MASK_ON", False, "a panoptic map needs instance masks, set it to True"
    if panoptic and model.ROI_HEADS.NAME == "Res5ROIHeads":
        yield "MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "they work on res4, without a pyramid, take StandardROIHeads"
    if model.ROI_HEADS.NAME in ("StandardROIHeads", "CascadeROIHeads"):
        yield from _box_head(model.ROI_BOX_HEAD)
    if model.MASK_ON and not model.ROI_MASK_HEAD.POOLER_TYPE and model.ROI_MASK_HEAD.NAME == "MaskRCNNConvUpsampleHead":
        yield "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MaskRCNNConvUpsampleHead needs pooled maps, take ROIAlignV2"
    if model.ROI_HEADS.NAME == "CascadeROIHeads":
        yield from _cascade(model)


def _is_panoptic(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE not in (*WITHOUT_ROI_HEADS, *WITHOUT_SEM_SEG_HEAD)


def _box_head(head: CfgNode) -> Found:
    if head.NAME not in ROI_BOX_HEAD_REGISTRY:
        yield "MODEL.ROI_BOX_HEAD.NAME", head.NAME, unregistered(head.NAME, ROI_BOX_HEAD_REGISTRY)
    elif head.NAME == "FastRCNNConvFCHead" and head.NUM_CONV + head.NUM_FC < 1:
        yield "MODEL.ROI_BOX_HEAD.NUM_FC", head.NUM_FC, "the head needs a layer, here or in ROI_BOX_HEAD.NUM_CONV"


def _cascade(model: CfgNode) -> Found:
    ious, weights = list(model.ROI_BOX_CASCADE_HEAD.IOUS), model.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
    if not model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        yield "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False, "CascadeROIHeads need True"
    if len(ious) != len(weights):
        yield "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", ious, f"BBOX_REG_WEIGHTS beside it has {len(weights)} stages"
    if ious and ious[0] != model.ROI_HEADS.IOU_THRESHOLDS[0]:
        first = list(model.ROI_HEADS.IOU_THRESHOLDS)[:1]
        yield "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", ious, f"it must begin as MODEL.ROI_HEADS.IOU_THRESHOLDS {first}"


_PYRAMIDS = {
    "build_resnet_fpn_backbone": 1,
    "build_retinanet_resnet_fpn_backbone": 2,
    "build_narrow_resnet_fpn_backbone": 1,
    "build_efficientnet_lite0_fpn_backbone": 1,
    "build_efficientnet_lite2_fpn_backbone": 1,
    "build_timm_fpn_backbone": 1,
}
"""Backbones with levels p2 … from res2 …, and how many levels come on top."""


def _levels(cfg: CfgNode) -> Found:
    """Levels that heads ask for and the pyramid does not have."""
    model, inputs = cfg.MODEL, list(cfg.MODEL.FPN.IN_FEATURES)
    if model.BACKBONE.NAME not in _PYRAMIDS or not inputs:
        return
    missing = [name for name in inputs if name not in model.RESNETS.OUT_FEATURES]
    if missing and "resnet" in model.BACKBONE.NAME:
        yield "MODEL.FPN.IN_FEATURES", inputs, f"MODEL.RESNETS.OUT_FEATURES lacks {', '.join(missing)}"
        return
    own = [f"p{name.removeprefix('res')}" for name in inputs]
    top = int(own[-1][1:]) if own[-1][1:].isdigit() else 5
    levels = [*own, *(f"p{top + k}" for k in range(1, 1 + _PYRAMIDS[model.BACKBONE.NAME]))]
    # The levels on top do not divide an image evenly: the semantic head cannot bring them to its stride.
    for key, has in (("RPN", levels), ("ROI_HEADS", levels), ("SEM_SEG_HEAD", own)):
        asked = list(model[key].IN_FEATURES)
        if not set(asked).issubset(has) or not asked:
            yield f"MODEL.{key}.IN_FEATURES", asked, f"it must name some of {', '.join(has)}"


def _anchors(cfg: CfgNode) -> Found:
    levels = list(cfg.MODEL.RPN.IN_FEATURES)
    for name in ("SIZES", "ASPECT_RATIOS"):
        rows = list(cfg.MODEL.ANCHOR_GENERATOR[name])
        if len(rows) not in (1, len(levels)):
            fits = f"it needs one list, or one for each of MODEL.RPN.IN_FEATURES ({', '.join(levels)})"
            yield f"MODEL.ANCHOR_GENERATOR.{name}", rows, fits


def _matchers(cfg: CfgNode) -> Found:
    for name in ("RPN", "ROI_HEADS"):
        thresholds, labels = list(cfg.MODEL[name].IOU_THRESHOLDS), list(cfg.MODEL[name].IOU_LABELS)
        if not thresholds or thresholds != sorted(thresholds):
            yield f"MODEL.{name}.IOU_THRESHOLDS", thresholds, "it needs at least one IoU, and they must rise"
        elif len(labels) != len(thresholds) + 1 or not {-1, 0, 1}.issuperset(labels):
            fits = "it needs one of 0, 1 and -1 (ignored) below each of IOU_THRESHOLDS beside it, and above the last"
            yield f"MODEL.{name}.IOU_LABELS", labels, fits


def _box_weights(cfg: CfgNode) -> Found:
    model = cfg.MODEL
    for name in ("RPN", "ROI_BOX_HEAD"):
        if len(model[name].BBOX_REG_WEIGHTS) != 4:
            yield f"MODEL.{name}.BBOX_REG_WEIGHTS", model[name].BBOX_REG_WEIGHTS, "a box has four: x, y, width, height"


def _resnets(cfg: CfgNode) -> Found:
    resnets, name = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.NAME
    if not name.startswith(("build_resnet", "build_retinanet_resnet", "build_narrow_resnet")):
        return
    narrow, depths = name.startswith("build_narrow_resnet"), (18, 34, 50, 101, 152)
    if resnets.DEPTH not in depths[: 2 if narrow else None]:
        yield "MODEL.RESNETS.DEPTH", resnets.DEPTH, f"{name} has {', '.join(map(str, depths[: 2 if narrow else None]))}"
    if resnets.DEPTH in (18, 34) and not narrow and resnets.RES2_OUT_CHANNELS != 64:
        width = resnets.RES2_OUT_CHANNELS
        yield "MODEL.RESNETS.RES2_OUT_CHANNELS", width, f"DEPTH {resnets.DEPTH} of {name} needs 64"
    if resnets.DEPTH in (18, 34) and resnets.NUM_GROUPS != 1:
        yield "MODEL.RESNETS.NUM_GROUPS", resnets.NUM_GROUPS, "blocks of DEPTH 18 and 34 have no groups, set it to 1"
    if resnets.RES5_DILATION != 1 and (narrow or "fpn" in name or resnets.DEPTH in (18, 34)):
        yield (
            "MODEL.RESNETS.RES5_DILATION",
            resnets.RES5_DILATION,
            "this backbone needs a stride of 32 at res5, set it to 1",
        )
    yield from _deformable(resnets, narrow)


def _deformable(resnets: CfgNode, narrow: bool) -> Found:
    key, stages = "MODEL.RESNETS.DEFORM_ON_PER_STAGE", list(resnets.DEFORM_ON_PER_STAGE)
    if any(stages) and (narrow or resnets.DEPTH in (18, 34)):
        yield key, stages, "blocks of DEPTH 18 and 34 have no deformable convolutions, set all to False"


def _timm(cfg: CfgNode) -> Found:
    frozen = cfg.MODEL.BACKBONE.FREEZE_AT
    if cfg.MODEL.BACKBONE.NAME == "build_timm_fpn_backbone" and frozen:
        yield "MODEL.BACKBONE.FREEZE_AT", frozen, "no stage of a timm backbone can be frozen, set it to 0"


def _semantic_head(cfg: CfgNode) -> Found:
    head = cfg.MODEL.SEM_SEG_HEAD
    fits = IGNORE_LABEL if head.NUM_CLASSES <= IGNORE_LABEL else LARGE_IGNORE_LABEL
    if 0 <= head.IGNORE_VALUE < head.NUM_CLASSES:  # that class would never be learnt
        yield "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", head.IGNORE_VALUE, f"set it to {fits}, what unlabelled pixels are"
    if head.COMMON_STRIDE < 1 or head.COMMON_STRIDE & (head.COMMON_STRIDE - 1):
        yield "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", head.COMMON_STRIDE, "it must be a power of 2"


def _solver(cfg: CfgNode) -> Found:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and solver.BASE_LR_END > solver.BASE_LR > 0:
        yield "SOLVER.BASE_LR_END", solver.BASE_LR_END, f"it must be at most SOLVER.BASE_LR, {solver.BASE_LR}"
    if solver.LR_SCHEDULER_NAME != "WarmupCosineLR" and not solver.GAMMA > 0:
        yield "SOLVER.GAMMA", solver.GAMMA, "it must be above 0"
    if list(solver.STEPS) != sorted(set(solver.STEPS)):
        yield "SOLVER.STEPS", list(solver.STEPS), "the iterations must rise"
    if solver.NESTEROV and (solver.get("OPTIMIZER", "SGD") != "SGD" or solver.MOMENTUM <= 0):
        yield "SOLVER.NESTEROV", True, "it needs SOLVER.OPTIMIZER 'SGD' and a SOLVER.MOMENTUM above 0"
    if solver.RESCALE_INTERVAL and solver.WARMUP_ITERS >= solver.MAX_ITER:  # nothing is left to rescale
        yield "SOLVER.RESCALE_INTERVAL", True, f"SOLVER.WARMUP_ITERS must be below SOLVER.MAX_ITER, {solver.MAX_ITER}"
    if solver.REFERENCE_WORLD_SIZE > 0 and solver.IMS_PER_BATCH % solver.REFERENCE_WORLD_SIZE:
        size = solver.IMS_PER_BATCH
        yield "SOLVER.REFERENCE_WORLD_SIZE", solver.REFERENCE_WORLD_SIZE, f"it must divide SOLVER.IMS_PER_BATCH, {size}"


def _average(cfg: CfgNode) -> Found:
    ema = cfg.SOLVER.get("EMA")
    if ema is not None and ema.ENABLED and not 0 <= ema.DECAY < 1:
        yield "SOLVER.EMA.DECAY", ema.DECAY, "it must be at least 0 and below 1"
    if ema is not None and ema.ENABLED and cfg.TEST.PRECISE_BN.ENABLED:
        fits = "SOLVER.EMA.ENABLED averages the statistics of batch norms too, set one of the two to False"
        yield "TEST.PRECISE_BN.ENABLED", True, fits


def _combine(cfg: CfgNode) -> Found:
    combine = cfg.MODEL.get("PANOPTIC_FPN", CfgNode()).get("COMBINE", CfgNode())
    if combine.get("NAME") != "DINCombiner":
        return
    weights = combine.get("DIN_WEIGHTS", DEFAULT_WEIGHTS)
    try:
        checked_weights(weights)
    except (TypeError, ValueError):
        fits = "it must be five numbers of at least 0, of which the first three are not all 0"
        yield "MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS", list(weights), fits


def _augmentation(cfg: CfgNode) -> Found:
    aug, name = cfg.TEST.AUG, cfg.MODEL.META_ARCHITECTURE
    if not aug.ENABLED:
        return
    architecture = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
    if (
        architecture is not None
        and architecture is not GeneralizedRCNN
        and not issubclass(architecture, PanopticFPNExt)
    ):
        yield (
            "TEST.AUG.ENABLED",
            True,
            f"it is for PanopticFPNExt and for GeneralizedRCNN, not for {name}; set it to False",
        )
    sizes = list(aug.MIN_SIZES)
    if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
        yield "TEST.AUG.MIN_SIZES", sizes, "it needs at least one size, in whole px"
    if aug.MAX_SIZE < 1:
        yield "TEST.AUG.MAX_SIZE", aug.MAX_SIZE, "it must be at least 1"


def _expected_results(cfg: CfgNode) -> Found:
    key, rows = "TEST.EXPECTED_RESULTS", cfg.TEST.EXPECTED_RESULTS
    if rows and len(cfg.DATASETS.TEST) != 1:
        yield key, rows, f"it needs one dataset in DATASETS.TEST, there are {len(cfg.DATASETS.TEST)}"
    tasks = measured_tasks(cfg)
    if cfg.TEST.AUG.ENABLED:
        tasks += [f"{task}_TTA" for task in tasks]
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != 4 or row[0] not in tasks:
            yield key, rows, f"a row is [task, metric, value, tolerance], the task one of {', '.join(tasks)}"
        elif not all(isinstance(number, int | float) for number in row[2:]):
            yield key, rows, "a row is [task, metric, value, tolerance], the last two numbers"


def _best_checkpoint(cfg: CfgNode) -> Found:
    metric, tasks = cfg.SOLVER.get("BEST_CHECKPOINTER", {}).get("METRIC", ""), measured_tasks(cfg)
    if metric and not set(tasks).intersection(metric.split("/")[:-1]):
        known = ", ".join(f"{task}/…" for task in tasks)
        yield (
            "SOLVER.BEST_CHECKPOINTER.METRIC",
            metric,
            f"it must be the name of a figure in metrics.json ({known}), such as panoptic_seg/PQ",
        )


COMBINATIONS: Final[tuple[Callable[[CfgNode], Found], ...]] = (
    _device,
    _train_sizes,
    _crops,
    _networks,
    _levels,
    _anchors,
    _matchers,
    _box_weights,
    _resnets,
    _timm,
    _semantic_head,
    _solver,
    _average,
    _combine,
    _augmentation,
    _expected_results,
    _best_checkpoint,
)
