"""A panoptic map drawn over its image.

All of it in bytes and row by row, so that an overlay needs little more memory than the image, the map and itself.

Shapes: K segments, H, W image, H', W' overlay.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from detectron2.utils.colormap import colormap

from ..panoptic_map import segment_index_map
from .labels import draw_labels

__all__ = ["draw_panoptic"]

_READABLE_SIDE: Final = 960  # px, from which labels of small objects can be read
_STRIP_PIXELS: Final = 2**18
_OUTLINE: Final = np.array([255, 255, 240], dtype=np.uint8)
_OUTLINE_OPACITY: Final = 160  # of 256
_STRIPE: Final = 5  # px
_VARIATION: Final = 0.15 * 255  # of the colours of things

_Pixels = npt.NDArray[np.uint8]


def draw_panoptic(
    image: _Pixels,
    panoptic_seg: torch.Tensor | npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    metadata: Any,
    *,
    alpha: float = 0.5,
    hatch_void: bool = False,
    vary: bool = True,
) -> _Pixels:
    """Draw segments in the colours of their categories, with names and, for predictions, scores.

    The arguments are not changed.

    Args:
        image: uint8 (H, W, 3), RGB.
        panoptic_seg: integer (H, W), segment ids; pixels whose id is not listed stay as they are.
        segments_info: ``id``, ``category_id`` (contiguous for things, semantic for stuff), ``isthing``; ``score`` and
            ``iscrowd`` if there are any.
        metadata: has ``thing_classes``, ``stuff_classes`` and, if it knows colours, ``thing_colors``, ``stuff_colors``.
        alpha: opacity of the colours, 0 to 1.
        hatch_void: whether pixels whose id is not listed are hatched, so that nobody takes them for a dark segment.
        vary: whether things of one category get slightly varied colours, the same ones at every call. Without, a
            category has one colour in all images, as in the frames of a video.

    Returns:
        uint8 (H', W', 3), RGB: the image's size, or so much larger that the longer side has 960 px. Names are left out
        where they could not be read, as in images of a few rows.

    Raises:
        ValueError: image and map differ in size.
    """
    ids = np.asarray(panoptic_seg.cpu() if isinstance(panoptic_seg, torch.Tensor) else panoptic_seg)
    if ids.shape != image.shape[:2]:
        raise ValueError(f"The panoptic map has size {ids.shape}, its image {image.shape[:2]} (height, width).")
    index = segment_index_map(ids, [int(segment["id"]) for segment in segments_info])
    canvas, index = _at_readable_size(image, index)
    colors = _colors(segments_info, metadata, vary)
    _blend(canvas, index, colors, alpha)
    if hatch_void:
        _hatch(canvas, index)
    _draw_outlines(canvas, index)
    labels = [_label(segment, metadata) for segment in segments_info]
    # The sort is stable: things keep the order of their scores.
    order = sorted(range(len(labels)), key=lambda k: not segments_info[k]["isthing"])
    draw_labels(canvas, index, labels, colors, order)
    return canvas


def _at_readable_size(image: _Pixels, index: npt.NDArray[np.integer]) -> tuple[_Pixels, npt.NDArray[np.integer]]:
    """A copy of the image and the map, enlarged if need be."""
    height, width = index.shape
    scale = _READABLE_SIDE / max(height, width)
    if scale <= 1:
        return np.array(image, order="C"), index
    size = (round(width * scale), round(height * scale))
    enlarged = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged), np.asarray(cv2.resize(index, size, interpolation=cv2.INTER_NEAREST))


def _colors(segments_info: Sequence[Mapping[str, Any]], metadata: Any, vary: bool) -> _Pixels:
    """uint8 (K, 3), RGB."""
    random = np.random.default_rng(0)
    colors = np.zeros((len(segments_info), 3), dtype=np.float64)
    for color, segment in zip(colors, segments_info, strict=True):
        isthing, category_id = bool(segment["isthing"]), int(segment["category_id"])
        known = getattr(metadata, "thing_colors" if isthing else "stuff_colors", None)
        others = colormap(rgb=True)
        color[:] = known[category_id] if known else others[(2 * category_id + isthing) % len(others)]
        if isthing and vary:
            color += random.uniform(-_VARIATION, _VARIATION, size=3)
    return colors.clip(0, 255).round().astype(np.uint8)


def _blend(canvas: _Pixels, index: npt.NDArray[np.integer], colors: _Pixels, alpha: float) -> None:
    """Lay the colours over the canvas, in 256ths; where the index is 0 it stays as it is."""
    opacity = round(alpha * 256)
    kept = np.full((len(colors) + 1, 1), 256 - opacity, dtype=np.uint16)
    kept[0] = 256
    added = np.full((len(colors) + 1, 3), 128, dtype=np.uint16)  # half a step, for rounding
    added[1:] += colors.astype(np.uint16) * np.uint16(opacity)
    for rows in _strips(*index.shape):
        strip = canvas[rows] * kept[index[rows]]
        strip += added[index[rows]]
        canvas[rows] = strip >> 8


def _hatch(canvas: _Pixels, index: npt.NDArray[np.integer]) -> None:
    """Slanting dark and light stripes where the index is 0."""
    width = max(1, round(max(index.shape) / _READABLE_SIDE)) * _STRIPE
    columns = np.arange(index.shape[1])
    for rows in _strips(*index.shape):
        steps = np.arange(rows.start, rows.stop)[:, None] + columns
        void, dark = index[rows] == 0, steps % (2 * width) < width
        strip = canvas[rows]
        strip[void & dark] = strip[void & dark] >> 1
        strip[void & ~dark] = (strip[void & ~dark] >> 1) + 100


def _draw_outlines(canvas: _Pixels, index: npt.NDArray[np.integer]) -> None:
    """Lines between segments, as wide as the size asks for."""
    # OpenCV has no such filter for 32 bits; that two neighbours are the same in 16 is not to be feared.
    narrow = index if index.dtype == np.uint8 else index.astype(np.uint16)
    side = 1 + max(1, round(max(index.shape) / _READABLE_SIDE))
    edges = cv2.morphologyEx(narrow, cv2.MORPH_GRADIENT, np.ones((side, side), dtype=np.uint8))
    for rows in _strips(*index.shape):
        on_edge = edges[rows] != 0
        under = canvas[rows][on_edge].astype(np.uint16)
        line = _OUTLINE.astype(np.uint16) * _OUTLINE_OPACITY
        canvas[rows][on_edge] = (under * (256 - _OUTLINE_OPACITY) + line) >> 8


def _label(segment: Mapping[str, Any], metadata: Any) -> str:
    """Name, score and crowd, as detectron2 writes them."""
    names = metadata.thing_classes if segment["isthing"] else metadata.stuff_classes
    name = str(names[segment["category_id"]])
    score = f" {100 * segment['score']:.0f}%" if "score" in segment else ""
    return name + score + ("|crowd" if segment.get("iscrowd", 0) else "")


def _strips(height: int, width: int) -> Iterator[slice]:
    """Consecutive rows, so many at a time that temporary copies stay small."""
    step = max(1, _STRIP_PIXELS // width)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
