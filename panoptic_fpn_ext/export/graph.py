"""A panoptic network as one function of tensors: an image in, its panoptic map and segments out.

It is made of the modules of an eager model, which stays as it is. Nothing here branches on a size or a count, so what
a tracer writes down serves every image.

Shapes: H, W image and output, h, w network input without padding, K candidates, N detections, M mask side, S segments,
C semantic classes, y, x logits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from ..modeling import PanopticFPNExt
from ..modeling.branches import BOTH, Features
from ..modeling.outputs import OUTPUTS
from ..modeling.sem_seg_head import raw_logits
from .combine import Thresholds, claim_pixels, free_labels, stuff_segments
from .detector import Detections, clip, detect, predict_masks, propose
from .parts import combine_settings, refuse_unknown_parts
from .resize import network_input_size, resize_image
from .tensors import as_dimensions, is_program, length

__all__ = ["RAW_NAMES", "SEGMENT_NAMES", "PanopticGraph", "RawInstances", "RawSemantics", "Segments"]


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


class RawInstances(NamedTuple):
    """All detections, on request: ``instance_category_id`` int64 (N,), of the dataset; ``instance_score`` float (N,),
    falling; ``instance_box`` float (N, 4), XYXY in output pixels; ``instance_mask`` float (N, M, M), probabilities
    inside the boxes.
    """

    instance_category_id: torch.Tensor
    instance_score: torch.Tensor
    instance_box: torch.Tensor
    instance_mask: torch.Tensor


class RawSemantics(NamedTuple):
    """What the semantic head says, on request: ``sem_seg_logits`` float (C, y, x), padding included, and
    ``network_input_size`` int64 (2,), h and w.
    """

    sem_seg_logits: torch.Tensor
    network_input_size: torch.Tensor


SEGMENT_NAMES = Segments._fields
RAW_NAMES = {"instances": RawInstances._fields, "sem_seg": RawSemantics._fields}
"""What a graph returns beside segments for a model's other outputs."""

Sides = tuple[torch.Tensor, torch.Tensor]


class PanopticGraph(nn.Module):
    """Resizing, network, suppression, masks and combiner of one image, with the results of the eager model."""

    thing_ids: torch.Tensor
    stuff_ids: torch.Tensor

    def __init__(
        self,
        model: Any,
        dataset_ids: Mapping[tuple[int, bool], int],
        resize: tuple[int, int],
        *,
        resizes: bool = True,
        outputs: Iterable[str] = ("panoptic_seg",),
    ) -> None:
        """
        Args:
            model: `PanopticFPNExt`, `SeparatePanopticNetworks` or detectron2's `PanopticFPN`, float32 on the CPU, in
                evaluation mode. It is not changed.
            dataset_ids: dataset id by (category_id, isthing) of the model.
            resize: ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``.
            resizes: whether the graph resizes; otherwise the image comes resized, and its output size beside it.
            outputs: those of ``OUTPUTS`` that evaluators need, ``panoptic_seg`` among them.

        Raises:
            ValueError: a part that the graph does not know, or other outputs; the message names it.
        """
        super().__init__()
        refuse_unknown_parts(model)
        self.outputs = frozenset(outputs)
        if "panoptic_seg" not in self.outputs or not self.outputs.issubset(OUTPUTS):
            raise ValueError(
                f"Outputs of an exported model are panoptic_seg and, on request, instances and sem_seg; got "
                f"{sorted(self.outputs)}."
            )
        self.model: Any = model
        self.resize, self.resizes = resize, resizes
        self.settings = combine_settings(model)
        num_things = model.roi_heads.num_classes
        num_labels = model.sem_seg_head.predictor.out_channels
        self.register_buffer("thing_ids", _id_table(dataset_ids, True, num_things))
        self.register_buffer("stuff_ids", _id_table(dataset_ids, False, num_labels))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of what :meth:`forward` returns."""
        return sum((names for name, names in RAW_NAMES.items() if name in self.outputs), SEGMENT_NAMES)

    def forward(
        self,
        image: torch.Tensor,
        instance_score_threshold: torch.Tensor | None = None,
        overlap_threshold: torch.Tensor | None = None,
        stuff_area_threshold: torch.Tensor | None = None,
        output_size: torch.Tensor | None = None,
        input_size: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            image: uint8 (H, W, 3), channels as ``INPUT.FORMAT`` has them; where the graph does not resize (h, w, 3), in
                `torch.export` padded below and on the right to what the backbone takes.
            instance_score_threshold, overlap_threshold, stuff_area_threshold: see :class:`.combine.Thresholds`; by
                default the model's.
            output_size: int64 (2,), H and W; where the graph does not resize.
            input_size: int64 (2,), h and w; in `torch.export` only.

        Returns:
            :class:`Segments` and, as ``output_names`` says, :class:`RawInstances` and :class:`RawSemantics`.
        """
        given = (instance_score_threshold, overlap_threshold, stuff_area_threshold)
        known = zip(given, self.settings.thresholds, strict=True)
        thresholds = Thresholds(*(default if one is None else one for one, default in known))
        height, width = length(image, 0), length(image, 1)
        if not self.resizes:
            assert output_size is not None
            if input_size is not None:
                height, width = input_size[0], input_size[1]
            return self._predict(image.int(), (height, width), (output_size[0], output_size[1]), thresholds)
        h, w = network_input_size(height, width, *self.resize)
        return self._predict(resize_image(image, h, w), (h, w), (height, width), thresholds)

    def _predict(
        self, image: torch.Tensor, input_size: Sides, output_size: Sides, thresholds: Thresholds
    ) -> tuple[torch.Tensor, ...]:
        """Of the resized image, int32 (h, w, 3)."""
        instance_features, semantic_features = self._features(image, input_size)
        logits = raw_logits(self.model.sem_seg_head, semantic_features).flatten(0, 1)
        found, placed = self._detections(instance_features, input_size, output_size)
        rows = _candidates(found.scores, thresholds.instance_score_threshold)
        extra: tuple[torch.Tensor, ...] = ()
        if "instances" in self.outputs:
            masks = predict_masks(self.model.roi_heads, instance_features, found)
            extra += RawInstances(self.thing_ids[placed.classes], placed.scores, placed.boxes, masks)
            masks = masks[rows]
        else:
            masks = predict_masks(self.model.roi_heads, instance_features, found.select(rows))
        if "sem_seg" in self.outputs:
            extra += RawSemantics(logits, torch.stack(input_size))
        dimensions = as_dimensions(output_size)
        segments = self._segments(placed.select(rows), masks, logits, input_size, dimensions, thresholds)
        return (*segments, *extra)

    def _features(self, image: torch.Tensor, input_size: Sides) -> tuple[Features, Features]:
        """What both branches see: normalised, then padded with zeros, as `preprocess_image` does it."""
        x = image.permute(2, 0, 1).float()
        x = ((x - self.model.pixel_mean) / self.model.pixel_std)[None]
        if is_program():
            within = (torch.arange(n) < side for n, side in zip(x.shape[2:], input_size, strict=True))
            x = x * next(within)[:, None] * next(within)
        else:
            divisor = max(1, self.model.backbone.size_divisibility)
            down, right = ((divisor - side % divisor) % divisor for side in input_size)
            x = F.pad(x, [0, right, 0, down])
        if isinstance(self.model, PanopticFPNExt):
            return self.model._features(ImageList(x, []), BOTH)
        features = self.model.backbone(x)
        return features, features

    def _detections(self, features: Features, input_size: Sides, output_size: Sides) -> tuple[Detections, Detections]:
        """Those whose box is not empty at output size, by falling score: in network input and in output pixels."""
        proposals = propose(self.model.proposal_generator, features, *input_size)
        found = detect(self.model.roi_heads, features, proposals, *input_size)
        scale_y, scale_x = (out.float() / side.float() for out, side in zip(output_size, input_size, strict=True))
        boxes = clip(found.boxes * torch.stack([scale_x, scale_y, scale_x, scale_y]), *output_size)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return found.select(visible), found._replace(boxes=boxes).select(visible)

    def _segments(
        self,
        candidates: Detections,
        masks: torch.Tensor,
        logits: torch.Tensor,
        input_size: Sides,
        output_size: Sequence[Any],
        thresholds: Thresholds,
    ) -> Segments:
        """Of candidates in output pixels, their masks float (K, M, M), and logits float (C, y, x)."""
        settings = self.settings
        boxes, scores, classes = candidates
        things = claim_pixels(
            masks, boxes, output_size[0], output_size[1], settings.mask_threshold, thresholds.overlap_threshold
        )
        got = things.areas.nonzero()[:, 0]
        panoptic_seg, stuff, stuff_areas = stuff_segments(
            things.panoptic_seg,
            free_labels(logits, settings.sem_seg_stride, input_size, (output_size[0], output_size[1])),
            int(logits.shape[0]),
            length(got, 0),
            settings.thing_sem_seg_ids,
            thresholds.stuff_area_threshold,
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


def _candidates(scores: torch.Tensor, least_score: torch.Tensor) -> torch.Tensor:
    """Rows of the detections that may become segments, int64 (K,), by falling score.

    Sorted as `HeuristicCombiner` and detectron2 sort them. PyTorch's sort does not keep the order of equal scores where
    it uses vector instructions; runtimes do.
    """
    order = torch.argsort(-scores)
    return order[scores[order] >= least_score]


def _id_table(dataset_ids: Mapping[tuple[int, bool], int], isthing: bool, size: int) -> torch.Tensor:
    """int64 (size,): dataset id by the model's id, 0 where there is none."""
    return torch.tensor([dataset_ids.get((i, isthing), 0) for i in range(size)], dtype=torch.int64)
