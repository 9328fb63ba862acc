"""Detections whose masks are computed only where someone looks at them.

Shapes: K detections, M mask side.
"""

from detectron2.modeling.roi_heads import CascadeROIHeads, ROIHeads, StandardROIHeads
from detectron2.structures import ImageList, Instances
from torch import Tensor

__all__ = ["detect_with_masks_above"]


def detect_with_masks_above(
    roi_heads: ROIHeads,
    images: ImageList,
    features: dict[str, Tensor],
    proposals: list[Instances],
    score_threshold: float,
) -> list[Instances]:
    """What ROI heads find; detections below a score keep their rows, but their masks are empty.

    The box branch runs first, and the mask branch sees only the detections at or above the score. ROI heads of other
    kinds than detectron2's `StandardROIHeads` and `CascadeROIHeads` are run as they are.

    Args:
        roi_heads: of detectron2's registry, in evaluation mode.
        images: network inputs.
        features: pyramid levels by name.
        proposals: one `Instances` an image.
        score_threshold: detections below it need no mask.

    Returns:
        One `Instances` an image; ``pred_masks`` float (K, 1, M, M).
    """
    if not _has_separate_branches(roi_heads):
        instances, _ = roi_heads(images, features, proposals, None)
        return instances
    found = roi_heads._forward_box(features, proposals)
    # As Python numbers, as where masks are combined: a float32 tensor would round the threshold.
    scores = [one.scores.tolist() for one in found]
    rows = [_rows([i for i, score in enumerate(one) if score >= score_threshold]) for one in scores]
    with_masks = roi_heads.forward_with_given_boxes(features, [one[i] for one, i in zip(found, rows, strict=True)])
    for one, i, masked in zip(found, rows, with_masks, strict=True):
        one.pred_masks = masked.pred_masks.new_zeros((len(one), *masked.pred_masks.shape[1:]))
        one.pred_masks[i] = masked.pred_masks
    return found


def _rows(rows: list[int]) -> list[int] | slice:
    """The first rows, as of detections in order of their scores, as a slice: a list would have to go to the device."""
    return slice(len(rows)) if rows == list(range(len(rows))) else rows


def _has_separate_branches(roi_heads: ROIHeads) -> bool:
    """Whether inference is ``_forward_box``, then ``forward_with_given_boxes``; another ``forward`` may differ."""
    return type(roi_heads).forward in (StandardROIHeads.forward, CascadeROIHeads.forward)
