"""Which models a graph has the results of, and what it reads off their parts."""

from typing import Any

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from ..modeling import HeuristicCombiner, PanopticFPNExt, PanopticFPNSemSegHead
from ..modeling.acceleration.anchors import OnDeviceAnchorGenerator
from ..modeling.acceleration.mask_head import PredictedClassMaskHead
from ..modeling.sem_seg_head import logits_stride
from .combine import CombineSettings

__all__ = ["combine_settings", "refuse_unknown_parts"]

# By the attribute that has it; a subclass may compute something else.
_KNOWN: dict[str, tuple[type, ...]] = {
    "proposal_generator": (RPN,),
    "proposal_generator.anchor_generator": (DefaultAnchorGenerator, OnDeviceAnchorGenerator),
    "roi_heads": (StandardROIHeads, CascadeROIHeads),
    "roi_heads.box_predictor": (FastRCNNOutputLayers, nn.ModuleList),
    "roi_heads.mask_head": (MaskRCNNConvUpsampleHead, PredictedClassMaskHead),
    "combiner": (HeuristicCombiner, type(None)),
}

# By name: without its compiled operators detectron2 has no such classes.
_DEFORMABLE = ("DeformConv", "ModulatedDeformConv")


def refuse_unknown_parts(model: Any) -> None:
    """``ValueError`` for a model with a part whose results the graph would not have."""
    # Of these the graph calls the model's own methods, so subclasses are fine.
    if not isinstance(model, (PanopticFPNExt, PanopticFPN)):
        raise _unknown("meta-architecture", model, (PanopticFPNExt, PanopticFPN))
    for path, classes in _KNOWN.items():
        part = _part(model, path)
        if type(part) not in classes:
            raise _unknown(path.rpartition(".")[2].replace("_", " "), part, classes)
    head = model.sem_seg_head
    if not (hasattr(head, "layers") and hasattr(head, "predictor")):  # of these the graph calls the head's own methods
        raise _unknown("semantic head", head, (PanopticFPNSemSegHead, SemSegFPNHead))
    side = model.backbone.padding_constraints.get("square_size", 0)
    if side > 0:
        raise ValueError(
            f"The model's backbone pads images to squares of {side} px, as ViTDet's and MViT's; what can be exported "
            "pads them to multiples of size_divisibility."
        )
    for name, module in model.named_modules():
        if type(module).__name__ in _DEFORMABLE:
            raise ValueError(
                f"{name} is a deformable convolution ({type(module).__name__}), which the exporters of PyTorch do not "
                "write. Export a model without: MODEL.RESNETS.DEFORM_ON_PER_STAGE [False, False, False, False]."
            )
    weight = next(model.parameters())
    if model.training or weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"What is exported is a float32 model on the CPU in evaluation mode, got {weight.dtype} on {weight.device}"
            f"{' in training mode' if model.training else ''}: call .float().cpu().eval() first."
        )


def _part(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = getattr(model, name, None)
    return model


def _unknown(what: str, part: Any, classes: tuple[type, ...]) -> ValueError:
    names = ", ".join(c.__name__ for c in classes if c not in (type(None), nn.ModuleList))
    return ValueError(f"The model's {what} is {type(part).__name__}; what can be exported is {names}.")


def combine_settings(model: Any) -> CombineSettings:
    """Thresholds of a model's combiner, ours or detectron2's function."""
    stride = logits_stride(model.sem_seg_head)
    if isinstance(model, PanopticFPNExt):
        combiner: Any = model.combiner
        return CombineSettings(
            combiner.overlap_threshold,
            combiner.stuff_area_threshold,
            combiner.instance_score_threshold,
            combiner.thing_sem_seg_ids,
            stride,
            combiner.mask_threshold,
        )
    return CombineSettings(
        model.combine_overlap_thresh, model.combine_stuff_area_thresh, model.combine_instances_score_thresh, {0}, stride
    )
