"""Detections at output size, as detectron2's `detector_postprocess` gives them.

Shapes: K detections, M mask side, H, W output.
"""

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from ..graph_capture import is_capturing_graph
from .masks import paste_masks

__all__ = ["boxes_at_output_size", "postprocess_instances"]


def boxes_at_output_size(instances: Instances, output_size: tuple[int, int]) -> Boxes:
    """Copies of the predicted boxes, scaled and clipped to the output; some may be empty."""
    boxes = instances.pred_boxes.clone()
    boxes.scale(output_size[1] / instances.image_size[1], output_size[0] / instances.image_size[0])
    boxes.clip(output_size)
    return boxes


def postprocess_instances(instances: Instances, output_size: tuple[int, int], mask_threshold: float = 0.5) -> Instances:
    """Detections whose box is not empty at output size. The argument is not changed.

    Args:
        instances: raw detections with ``pred_boxes`` and, if there are masks, ``pred_masks``, float (K, 1, M, M)
            probabilities.
        output_size: (H, W).
        mask_threshold: probability from which a pixel belongs to an instance.

    Returns:
        The same fields, boxes in output pixels and ``pred_masks`` bool (K', H, W).
    """
    copied = Instances(instances.image_size, **instances.get_fields())
    # detectron2 scales these in place.
    for name in ("pred_boxes", "pred_keypoints"):
        if copied.has(name):
            copied.set(name, copied.get(name).clone())
    if is_capturing_graph():
        return detector_postprocess(copied, *output_size, mask_threshold)
    has_masks = copied.has("pred_masks")
    if has_masks:
        # Under another name, so that detectron2 filters the masks and leaves the pasting to us.
        copied.roi_masks = copied.pred_masks[:, 0]
        copied.remove("pred_masks")
    result = detector_postprocess(copied, *output_size)
    if has_masks:
        result.pred_masks = paste_masks(result.roi_masks, result.pred_boxes.tensor, output_size, mask_threshold)
        result.remove("roi_masks")
    return result
