"""Detections at output size, as detectron2's `detector_postprocess` gives them.

Shapes: K detections, K' of them with a box that is not empty at output size, M mask side, H, W output.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from ..graph_capture import is_capturing_graph
from .masks import Window, paste_each, paste_masks, paste_windows
from .memory import OutputMemory

__all__ = ["PlacedInstances", "Placement", "place_instances", "postprocess_instances"]


class Placement(NamedTuple):
    """Where detections lie at output size. Except for ``boxes``, all of it is on the host.

    Attributes:
        output_size: (H, W).
        boxes: float (K, 4), XYXY in output pixels, clipped to the output; on the device.
        rows: the K' detections whose box is not empty, as positions among the K, ascending.
        windows: where the masks of these can have pixels.
        scores: of these; empty where detections have no scores.
        classes: of these, contiguous thing ids; empty where detections have no classes.
    """

    output_size: tuple[int, int]
    boxes: torch.Tensor
    rows: list[int]
    windows: list[Window]
    scores: list[float]
    classes: list[int]


class PlacedInstances(Instances):
    """Raw detections, fields as they are, whose ``placement`` at one output size is known.

    ``pasted``: all masks at that size and the threshold that made them, if they were made.
    """

    def __init__(self, image_size: tuple[int, int], placement: Placement, **fields: Any) -> None:
        """
        Args:
            image_size: (height, width) of the network input.
            placement: at output size.
            fields: of the detections.
        """
        super().__init__(image_size, **fields)
        self.placement: Placement
        self.pasted: tuple[torch.Tensor, float] | None
        # `Instances` would take them for fields.
        object.__setattr__(self, "placement", placement)
        object.__setattr__(self, "pasted", None)

    def paste(self, k: int, threshold: float) -> torch.Tensor:
        """Mask of the k-th detection whose box is not empty, bool of its window's shape; it may be changed."""
        return next(self.paste_each([k], threshold))

    def paste_each(self, chosen: Sequence[int], threshold: float) -> Iterator[torch.Tensor]:
        """Masks of some of the detections whose box is not empty, one by one; see :meth:`paste`."""
        windows = [self.placement.windows[k] for k in chosen]
        if self.pasted is not None and self.pasted[1] == threshold:
            for k, window in zip(chosen, windows, strict=True):
                yield self.pasted[0][k][window].clone()
            return
        rows = [self.placement.rows[k] for k in chosen]  # A list as an index would be an upload.
        masks, boxes = [self.pred_masks[row, 0] for row in rows], [self.placement.boxes[row] for row in rows]
        yield from paste_each(masks, boxes, windows, threshold)


def place_instances(instances: Instances, output_size: tuple[int, int]) -> PlacedInstances:
    """Find where detections lie at output size.

    A host that asks a GPU for numbers waits until all work is done. So it asks once, for everything that it needs, and
    not again if the detections are placed already.

    Args:
        instances: K raw detections with ``pred_boxes``, in network input pixels. They are not changed.
        output_size: (H, W).

    Raises:
        ValueError: boxes that are not finite.
    """
    if isinstance(instances, PlacedInstances) and instances.placement.output_size == output_size:
        return instances
    boxes = _scaled(instances, output_size)
    known = [instances.get(name)[:, None] for name in ("scores", "pred_classes") if instances.has(name)]
    is_finite = boxes.isfinite().all(dim=1, keepdim=True)
    boxes = _clipped(boxes, output_size)
    # float64 holds float32 and class ids exactly.
    numbers = torch.cat([column.detach().double() for column in (is_finite, boxes, *known)], dim=1).tolist()
    if not all(row[0] for row in numbers):
        raise ValueError("Boxes of detections must be finite, got infinity or NaN.")
    rows = [k for k, (_, x0, y0, x1, y1, *_) in enumerate(numbers) if x1 > x0 and y1 > y0]
    corners = [numbers[k][1:5] for k in rows]
    scores = [numbers[k][5] for k in rows] if instances.has("scores") else []
    classes = [int(numbers[k][-1]) for k in rows] if instances.has("pred_classes") else []
    placement = Placement(output_size, boxes, rows, paste_windows(corners, output_size), scores, classes)
    return PlacedInstances(instances.image_size, placement, **instances.get_fields())


def postprocess_instances(
    instances: Instances,
    output_size: tuple[int, int],
    mask_threshold: float = 0.5,
    memory: OutputMemory | None = None,
) -> Instances:
    """Detections whose box is not empty at output size. The argument is not changed.

    Args:
        instances: raw detections with ``pred_boxes`` and, if there are masks, ``pred_masks``, float (K, 1, M, M)
            probabilities.
        output_size: (H, W).
        mask_threshold: probability from which a pixel belongs to an instance.
        memory: for the masks.

    Returns:
        The same fields, boxes in output pixels and ``pred_masks`` bool (K', H, W).

    Raises:
        ValueError: boxes that are not finite.
    """
    if is_capturing_graph():
        return _postprocess_plainly(instances, output_size, mask_threshold)
    placed = place_instances(instances, output_size)
    placement = placed.placement
    fields: dict[str, Any] = {**placed.get_fields(), "pred_boxes": Boxes(placement.boxes)}
    result = Instances(output_size, **fields)
    if len(placement.rows) < len(placed):
        result = result[_nonempty_rows(placement)]
    if result.has("pred_masks"):
        boxes = result.pred_boxes.tensor
        masks = result.pred_masks[:, 0]
        result.pred_masks = paste_masks(masks, boxes, output_size, mask_threshold, placement.windows, memory)
        object.__setattr__(placed, "pasted", (result.pred_masks, mask_threshold))  # for the combiner
    if result.has("pred_keypoints"):
        result.pred_keypoints = result.pred_keypoints.clone()
        result.pred_keypoints[:, :, 0] *= output_size[1] / instances.image_size[1]
        result.pred_keypoints[:, :, 1] *= output_size[0] / instances.image_size[0]
    return result


def _postprocess_plainly(instances: Instances, output_size: tuple[int, int], mask_threshold: float) -> Instances:
    """`detector_postprocess` on copies of what it scales in place."""
    copied = Instances(instances.image_size, **instances.get_fields())
    for name in ("pred_boxes", "pred_keypoints"):
        if copied.has(name):
            copied.set(name, copied.get(name).clone())
    result: Instances = detector_postprocess(copied, *output_size, mask_threshold)
    return result


def _scaled(instances: Instances, output_size: tuple[int, int]) -> torch.Tensor:
    """Copies of the predicted boxes, float (K, 4) in output pixels, which may go beyond the output."""
    boxes = instances.pred_boxes.clone()
    boxes.scale(output_size[1] / instances.image_size[1], output_size[0] / instances.image_size[0])
    scaled: torch.Tensor = boxes.tensor
    return scaled


def _clipped(boxes: torch.Tensor, output_size: tuple[int, int]) -> torch.Tensor:
    """As `Boxes.clip`, without its look at the values."""
    height, width = output_size
    x, y = boxes[:, 0::2].clamp(min=0, max=width), boxes[:, 1::2].clamp(min=0, max=height)
    return torch.stack([x, y], dim=2).flatten(1)


def _nonempty_rows(placement: Placement) -> torch.Tensor:
    """``rows`` as int64 (K',) on the device, found there: an upload would make the host wait."""
    x0, y0, x1, y1 = placement.boxes.unbind(dim=1)
    is_empty = ((x1 <= x0) | (y1 <= y0)).byte()
    return is_empty.argsort(stable=True)[: len(placement.rows)]
