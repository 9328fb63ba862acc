"""What detectron2's RPN and RoI heads find in one image, on plain tensors and without a branch on a count.

Shapes: h, w network input without padding; L levels, A anchors a cell; P proposals, R RoIs, K detections; T things; M
mask side.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..modeling.branches import Features
from .nms import non_maximum_suppression
from .tensors import Size, at_most, length

__all__ = ["Detections", "detect", "predict_masks", "propose"]


class Detections(NamedTuple):
    """``boxes`` float (K, 4), XYXY in network input pixels; ``scores`` float (K,); ``classes`` int64 (K,)."""

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor

    def select(self, rows: torch.Tensor) -> "Detections":
        """Those of some rows, int64 or bool."""
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows])


def propose(rpn: Any, features: Features, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Boxes of detectron2's `RPN` in evaluation: float (P, 4), by falling objectness.

    Args:
        rpn: with anchors of `DefaultAnchorGenerator`.
        features: pyramid levels by name, of one image.
        height, width: int64 (), h and w.
    """
    levels = [features[name] for name in rpn.in_features]
    logits, deltas = rpn.rpn_head(levels)
    found = [_top_of_level(rpn, i, *level) for i, level in enumerate(zip(logits, deltas, strict=True))]
    boxes = clip(torch.cat([boxes for boxes, _ in found]), height, width)
    scores = torch.cat([scores for _, scores in found])
    level_of = torch.cat([torch.full_like(scores, i, dtype=torch.int64) for i, (_, scores) in enumerate(found)])
    valid = boxes.isfinite().all(dim=1) & scores.isfinite() & _has_area(boxes, rpn.min_box_size)
    boxes, scores, level_of = boxes[valid], scores[valid], level_of[valid]
    most = rpn.post_nms_topk[False]
    return boxes[non_maximum_suppression(boxes, scores, level_of, rpn.nms_thresh, len(found), most)]


def _top_of_level(
    rpn: Any, level: int, logits: torch.Tensor, deltas: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and logits of the best anchors of one level, from (1, A, y, x) and (1, A * 4, y, x)."""
    anchors = _anchors(rpn.anchor_generator, level, length(logits, 2), length(logits, 3))
    # No indexing of the image: OpenVINO takes scales of 8-bit layers through it in the wrong dimensions.
    logits = logits.permute(0, 2, 3, 1).flatten()
    deltas = deltas.permute(0, 2, 3, 1).reshape(-1, 4)  # y * x * A, 4
    scores, best = logits.topk(at_most(length(logits, 0), rpn.pre_nms_topk[False]))
    return rpn.box2box_transform.apply_deltas(deltas[best], anchors[best]), scores


def _anchors(generator: Any, level: int, rows: Size, cols: Size) -> torch.Tensor:
    """float (y * x * A, 4), as `DefaultAnchorGenerator` makes them."""
    stride, cells = generator.strides[level], list(generator.cell_anchors)[level]
    y, x = (torch.arange(n, dtype=torch.float32) * stride + generator.offset * stride for n in (rows, cols))
    y, x = y[:, None] + torch.zeros_like(x), x + torch.zeros_like(y)[:, None]
    shifts = torch.stack([x, y, x, y], dim=2)  # y, x, 4
    return (shifts[:, :, None] + cells).flatten(0, 2)


def detect(
    roi_heads: Any, features: Features, proposals: torch.Tensor, height: torch.Tensor, width: torch.Tensor
) -> Detections:
    """The box branch of `StandardROIHeads` or `CascadeROIHeads`, by falling score.

    Args:
        roi_heads: in evaluation mode.
        features: pyramid levels by name, of one image.
        proposals: float (P, 4).
        height, width: int64 (), h and w.
    """
    is_cascade = isinstance(roi_heads.box_predictor, nn.ModuleList)
    heads = roi_heads.box_head if is_cascade else [roi_heads.box_head]
    predictors = roi_heads.box_predictor if is_cascade else [roi_heads.box_predictor]
    levels = [features[name] for name in roi_heads.box_in_features]
    boxes, probs = proposals, []
    for stage, (head, predictor) in enumerate(zip(heads, predictors, strict=True)):
        if stage > 0:
            boxes = clip(boxes, height, width)
        logits, deltas = predictor(head(pool(roi_heads.box_pooler, levels, boxes)))
        is_sigmoid = getattr(predictor, "use_sigmoid_ce", False)
        probs.append(logits.sigmoid() if is_sigmoid else logits.softmax(dim=1))
        boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
    scores = torch.stack(probs).sum(dim=0) * (1.0 / len(probs)) if is_cascade else probs[0]
    return _best(predictors[-1], boxes, scores, height, width)


def _best(
    predictor: Any, boxes: torch.Tensor, scores: torch.Tensor, height: torch.Tensor, width: torch.Tensor
) -> Detections:
    """What `fast_rcnn_inference` keeps of boxes (R, 4) or (R, T * 4) and scores (R, T + 1)."""
    valid = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    num_things = int(scores.shape[1]) - 1
    is_agnostic = int(boxes.shape[1]) == 4
    above = (scores[:, :-1] > predictor.test_score_thresh) & valid[:, None]
    rows, classes = above.nonzero().unbind(dim=1)
    boxes = boxes[rows] if is_agnostic else boxes.unflatten(1, (num_things, 4))[rows, classes]
    found = Detections(clip(boxes, height, width), scores[rows, classes], classes)
    most = predictor.test_topk_per_image
    return found.select(non_maximum_suppression(*found, predictor.test_nms_thresh, num_things, most))


def predict_masks(roi_heads: Any, features: Features, detections: Detections) -> torch.Tensor:
    """Probabilities inside the boxes, float (K, M, M)."""
    levels = [features[name] for name in roi_heads.mask_in_features]
    logits = roi_heads.mask_head.layers(pool(roi_heads.mask_pooler, levels, detections.boxes))
    if int(logits.shape[1]) == 1:
        return logits[:, 0].sigmoid()
    row = torch.arange(length(detections.classes, 0))
    return logits[row, detections.classes].sigmoid()


def pool(pooler: Any, levels: Sequence[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
    """detectron2's `ROIPooler` on one image: float (R, 4) to (R, F, side, side)."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    aligns = pooler.level_poolers
    if len(aligns) == 1:
        pooled: torch.Tensor = aligns[0](levels[0], rois)
        return pooled
    level_of = _level_of(pooler, boxes)
    rows = [(level_of == i).nonzero()[:, 0] for i in range(len(aligns))]
    parts = [align(level, rois[row]) for align, level, row in zip(aligns, levels, rows, strict=True)]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _level_of(pooler: Any, boxes: torch.Tensor) -> torch.Tensor:
    """float (R,), as detectron2's `assign_boxes_to_levels`: equation 1 of the FPN paper."""
    sides = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    level = torch.floor(pooler.canonical_level + torch.log2(sides / pooler.canonical_box_size + 1e-8))
    return level.clamp(pooler.min_level, pooler.max_level) - pooler.min_level


def clip(boxes: torch.Tensor, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """float (…, 4) XYXY, within the image; the bounds stay part of the graph."""
    size = torch.stack([width, height, width, height]).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), size)


def _has_area(boxes: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """bool (R,): both sides are longer than ``threshold``."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides > threshold).all(dim=1)


def least_float32(threshold: float) -> float:
    """The smallest float32 number that is not below a threshold: what a float32 score has to reach."""
    rounded = torch.tensor(threshold, dtype=torch.float32)
    if rounded.item() < threshold:
        rounded = torch.nextafter(rounded, torch.tensor(math.inf))
    return float(rounded)
