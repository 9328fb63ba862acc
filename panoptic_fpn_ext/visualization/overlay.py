"""A panoptic map drawn over its image."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from detectron2.utils.visualizer import Visualizer

__all__ = ["draw_panoptic"]

_READABLE_SIDE = 960  # px, from which labels of small objects can be read


def draw_panoptic(
    image: npt.NDArray[np.uint8],
    panoptic_seg: torch.Tensor | npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    metadata: Any,
    *,
    alpha: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """Draw segments in the colours of their categories, with names and, for predictions, scores.

    Things get slightly varied colours, the same ones at every call. The arguments are not changed.

    Args:
        image: uint8 (H, W, 3), RGB.
        panoptic_seg: integer (H, W), segment ids; pixels whose id is not listed stay as they are.
        segments_info: ``id``, ``category_id`` (contiguous for things, semantic for stuff), ``isthing``; ``score`` and
            ``iscrowd`` if there are any.
        metadata: has ``thing_classes``, ``stuff_classes`` and, if it knows colours, ``thing_colors``, ``stuff_colors``.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 (H', W', 3), RGB: the image's size, or so much larger that the longer side has 960 px.

    Raises:
        ValueError: image and map differ in size.
    """
    ids = np.asarray(panoptic_seg.cpu() if isinstance(panoptic_seg, torch.Tensor) else panoptic_seg).astype(np.int64)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"The panoptic map has size {ids.shape}, its image {image.shape[:2]} (height, width).")
    height, width = ids.shape
    scale = max(1.0, _READABLE_SIDE / max(height, width))
    size = (round(width * scale), round(height * scale))
    resized_ids = cv2.resize(ids.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    visualizer = _Visualizer(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)), metadata)
    # Copies, because detectron2 writes areas into the list.
    segments = [dict(segment) for segment in segments_info]
    drawn = visualizer.draw_panoptic_seg(torch.from_numpy(resized_ids), segments, alpha=alpha).get_image()
    return np.ascontiguousarray(drawn)


class _Visualizer(Visualizer):
    """Varies the colours of things with its own generator: the same each time, and the global one is left alone."""

    def __init__(self, image: npt.NDArray[np.uint8], metadata: Any) -> None:
        super().__init__(image, metadata)
        self._random = np.random.default_rng(0)

    def _jitter(self, color: Sequence[float]) -> tuple[float, ...]:
        shift = self._random.uniform(-0.15, 0.15, size=3)
        return tuple(np.clip(np.asarray(color) + shift, 0, 1).tolist())
