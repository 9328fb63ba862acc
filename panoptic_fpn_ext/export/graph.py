"""A panoptic network as one function of tensors: an image in, its panoptic map and segments out.

It is made of the modules of an eager model, which stays as it is. Nothing here branches on a size or a count, so what
a tracer writes down serves every image.

Shapes: H, W image and output, h, w network input without padding, K candidates, S segments.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from ..modeling import HeuristicCombiner, PanopticFPNExt
from ..modeling.acceleration.anchors import OnDeviceAnchorGenerator
from ..modeling.branches import BOTH, Features
from ..modeling.sem_seg_head import logits_stride, raw_logits
from .combine import CombineSettings, claim_pixels, free_labels, stuff_segments
from .detector import clip, detect, predict_masks, propose
from .resize import network_input_size, resize_image
from .tensors import length

__all__ = ["OUTPUT_NAMES", "PanopticGraph", "Segments"]


class Segments(NamedTuple):
    """What the graph says of one image.

    ``panoptic_seg`` int32 (H, W), ids 1…S, 0 is void; and of each segment, in the order of its id: ``segment_id`` int64
    (S,), ``category_id`` int64 (S,), of the dataset, ``isthing`` bool (S,), ``score`` float (S,), 1 for stuff, ``area``
    int64 (S,) in pixels, ``box`` float (S, 4), XYXY in output pixels as the network predicts it, 0 for stuff.
    """

    panoptic_seg: torch.Tensor
    segment_id: torch.Tensor
    category_id: torch.Tensor
    isthing: torch.Tensor
    score: torch.Tensor
    area: torch.Tensor
    box: torch.Tensor


OUTPUT_NAMES = Segments._fields


class PanopticGraph(nn.Module):
    """Resizing, network, suppression, masks and combiner of one image, with the results of the eager model."""

    thing_ids: torch.Tensor
    stuff_ids: torch.Tensor

    def __init__(self, model: Any, dataset_ids: Mapping[tuple[int, bool], int], resize: tuple[int, int] | None) -> None:
        """
        Args:
            model: `PanopticFPNExt`, `SeparatePanopticNetworks` or detectron2's `PanopticFPN`, float32 on the CPU, in
                evaluation mode and not optimised. It is not changed.
            dataset_ids: dataset id by (category_id, isthing) of the model.
            resize: ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``; None: the image comes resized, and its output size
                beside it.

        Raises:
            ValueError: a part that the graph does not know; the message names it.
        """
        super().__init__()
        refuse_unknown_parts(model)
        self.model: Any = model
        self.resize = resize
        self.settings = combine_settings(model)
        num_things = model.roi_heads.num_classes
        num_labels = model.sem_seg_head.predictor.out_channels
        self.register_buffer("thing_ids", _id_table(dataset_ids, True, num_things))
        self.register_buffer("stuff_ids", _id_table(dataset_ids, False, num_labels))

    def forward(self, image: torch.Tensor, output_size: torch.Tensor | None = None) -> Segments:
        """
        Args:
            image: uint8 (H, W, 3), channels as ``INPUT.FORMAT`` has them; without ``resize`` (h, w, 3).
            output_size: int64 (2,), H and W; without ``resize`` only.
        """
        height, width = length(image, 0), length(image, 1)
        if self.resize is None:
            assert output_size is not None
            return self._predict(image.int(), (height, width), (output_size[0], output_size[1]))
        h, w = network_input_size(height, width, *self.resize)
        return self._predict(resize_image(image, h, w), (h, w), (height, width))

    def _predict(
        self,
        image: torch.Tensor,
        input_size: tuple[torch.Tensor, torch.Tensor],
        output_size: tuple[torch.Tensor, torch.Tensor],
    ) -> Segments:
        """Of the resized image, int32 (h, w, 3)."""
        instance_features, semantic_features = self._features(image, input_size)
        logits = raw_logits(self.model.sem_seg_head, semantic_features)[0]
        boxes, classes, scores, masks = self._candidates(instance_features, input_size, output_size)
        things = claim_pixels(masks, boxes, *output_size, self.settings)
        got = things.areas.nonzero()[:, 0]
        labels = free_labels(logits, self.settings.sem_seg_stride, input_size, output_size)
        panoptic_seg, stuff, stuff_areas = stuff_segments(
            things.panoptic_seg, labels, int(logits.shape[0]), length(got, 0), self.settings
        )
        categories = torch.cat([self.thing_ids[classes[got]], self.stuff_ids[stuff]])
        return Segments(
            panoptic_seg=panoptic_seg,
            segment_id=torch.arange(length(categories, 0)) + 1,
            category_id=categories,
            isthing=torch.cat([torch.ones_like(got), torch.zeros_like(stuff)]).bool(),
            score=torch.cat([scores[got], torch.ones_like(stuff, dtype=torch.float32)]),
            area=torch.cat([things.areas[got], stuff_areas]),
            box=torch.cat([boxes[got], torch.zeros_like(stuff, dtype=torch.float32)[:, None].expand(-1, 4)]),
        )

    def _features(
        self, image: torch.Tensor, input_size: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[Features, Features]:
        """What both branches see: normalised, then padded with zeros, as `preprocess_image` does it."""
        x = image.permute(2, 0, 1).float()
        x = ((x - self.model.pixel_mean) / self.model.pixel_std)[None]
        divisor = max(1, self.model.backbone.size_divisibility)
        down, right = ((divisor - side % divisor) % divisor for side in input_size)
        x = F.pad(x, [0, right, 0, down])
        if isinstance(self.model, PanopticFPNExt):
            return self.model._features(ImageList(x, []), BOTH)
        features = self.model.backbone(x)
        return features, features

    def _candidates(
        self,
        features: Features,
        input_size: tuple[torch.Tensor, torch.Tensor],
        output_size: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Detections that may become segments, by falling score: boxes in output pixels, classes, scores, masks."""
        roi_heads = self.model.roi_heads
        proposals = propose(self.model.proposal_generator, features, *input_size)
        found = detect(roi_heads, features, proposals, *input_size)
        found = found.select(found.scores >= self.settings.least_score)
        scale_y, scale_x = (out.float() / side.float() for out, side in zip(output_size, input_size, strict=True))
        boxes = clip(found.boxes * torch.stack([scale_x, scale_y, scale_x, scale_y]), *output_size)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        found, boxes = found.select(visible), boxes[visible]
        return boxes, found.classes, found.scores, predict_masks(roi_heads, features, found)


def _id_table(dataset_ids: Mapping[tuple[int, bool], int], isthing: bool, size: int) -> torch.Tensor:
    """int64 (size,): dataset id by the model's id, 0 where there is none."""
    return torch.tensor([dataset_ids.get((i, isthing), 0) for i in range(size)], dtype=torch.int64)


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


def refuse_unknown_parts(model: Any) -> None:
    """``ValueError`` for a model with a part whose results the graph would not have."""
    known = {
        "meta-architecture": (model, (PanopticFPNExt, PanopticFPN)),
        "proposal generator": (getattr(model, "proposal_generator", None), (RPN,)),
        "anchor generator": (
            getattr(getattr(model, "proposal_generator", None), "anchor_generator", None),
            (DefaultAnchorGenerator, OnDeviceAnchorGenerator),
        ),
        "ROI heads": (getattr(model, "roi_heads", None), (StandardROIHeads, CascadeROIHeads)),
        "combiner": (getattr(model, "combiner", None), (HeuristicCombiner, type(None))),
    }
    for what, (part, classes) in known.items():
        # A subclass may compute something else, except where the graph calls the model's own method.
        is_known = isinstance(part, classes) if what == "meta-architecture" else type(part) in classes
        if not is_known:
            names = ", ".join(c.__name__ for c in classes if c is not type(None))
            raise ValueError(f"The model's {what} is {type(part).__name__}; what can be exported is {names}.")
    weight = next(model.parameters())
    if model.training or weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"What is exported is a float32 model on the CPU in evaluation mode, got {weight.dtype} on {weight.device}"
            f"{' in training mode' if model.training else ''}: call .float().cpu().eval() first."
        )
