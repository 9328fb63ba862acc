"""Do anchors, crops and image sizes fit the boxes of a dataset, as large as they are in training?

Shapes: B boxes, A anchors; sizes are height and width, px.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.config import CfgNode

from ...data.segment_statistics import SegmentStatistics

__all__ = ["anchor_warnings", "best_overlap", "crop_warnings", "scale_warnings"]

Sizes = npt.NDArray[np.float64]

_POOR_IOU = 0.5
"""An anchor that is centred on a box and overlaps less does not fit it; fitting sets of anchors reach 0.5 for 7 of 10
boxes or more, and 0.7, the RPN's threshold for sure positives, for a third."""


def anchor_warnings(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Iterator[str]:
    """Warn if most boxes are far from all anchors, or smaller than the least proposal."""
    generator = cfg.MODEL.ANCHOR_GENERATOR
    boxes = statistics.box_sizes * _train_scales(cfg, statistics.image_sizes)[statistics.box_images, None]
    sizes, ratios = [s for row in generator.SIZES for s in row], [r for row in generator.ASPECT_RATIOS for r in row]
    poor = (best_overlap(boxes, _anchors(sizes, ratios)) < _POOR_IOU).mean()
    if poor > 0.5:
        key, fits = _fitting(cfg, boxes, ratios)
        yield (
            f"MODEL.ANCHOR_GENERATOR.{key} is {[list(row) for row in generator[key]]}: no anchor comes near "
            f"{100 * poor:.0f} % of the boxes of {name} at the size of training images (INPUT.MIN_SIZE_TRAIN), whose "
            f"sides are {_range(boxes)}. Set it to {fits}."
        )
    least = cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE
    smaller = (boxes.min(axis=1) <= least).mean()
    if least > 0 and smaller > 0.5:
        yield (
            f"MODEL.PROPOSAL_GENERATOR.MIN_SIZE is {least:g} px: {100 * smaller:.0f} % of the boxes of {name} are "
            "smaller in training (INPUT.MIN_SIZE_TRAIN). Set it to 0."
        )


def best_overlap(boxes: Sizes, anchors: Sizes) -> npt.NDArray[np.float64]:
    """Largest IoU of each box (B, 2) with any anchor (A, 2) that has the same centre: float (B,)."""
    common = np.minimum(boxes[:, None], anchors[None]).prod(axis=2)
    union = boxes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - common
    best: npt.NDArray[np.float64] = (common / union).max(axis=1)
    return best


def _anchors(sizes: list[float], ratios: list[float]) -> Sizes:
    """(A, 2); a size is the root of an area and a ratio height ÷ width, as detectron2 has them."""
    return np.array([(size * ratio**0.5, size / ratio**0.5) for size in sizes for ratio in ratios], np.float64)


def _fitting(cfg: CfgNode, boxes: Sizes, ratios: list[float]) -> tuple[str, list[list[float]]]:
    """The key that is to blame, and a value with which the anchors fit these boxes."""
    levels = len(cfg.MODEL.ANCHOR_GENERATOR.SIZES)
    count = levels if levels > 1 else max(1, len(cfg.MODEL.ANCHOR_GENERATOR.SIZES[0]))
    least, most = np.percentile(np.sqrt(boxes.prod(axis=1)), (10, 90))
    # Neighbours a factor of 2 apart, as the strides of the levels are, or closer where the boxes are alike.
    factor = min(2.0, max(1.25, (most / least) ** (1 / max(1, count - 1))))
    middle = (least * most) ** 0.5 if factor == 2.0 and most / least > 2.0 ** (count - 1) else None
    first = least if middle is None else middle / factor ** ((count - 1) / 2)
    sizes = [float(max(4, round(first * factor**k))) for k in range(count)]
    if (best_overlap(boxes, _anchors(sizes, ratios)) >= _POOR_IOU).mean() >= 0.5:
        return "SIZES", [[size] for size in sizes] if levels > 1 else [sizes]
    flat, _, tall = np.percentile(boxes[:, 0] / boxes[:, 1], (15, 50, 85))
    return "ASPECT_RATIOS", [[float(f"{ratio:.2g}") for ratio in (flat, (flat * tall) ** 0.5, tall)]]


def _range(boxes: Sizes) -> str:
    low, high = np.percentile(np.sqrt(boxes.prod(axis=1)), (10, 90))
    return f"about {low:.0f} to {high:.0f} px"


def crop_warnings(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Iterator[str]:
    """Warn if absolute crops are larger than all training images, or smaller than most boxes."""
    crop = cfg.INPUT.CROP
    if not crop.ENABLED:
        return
    scales = _train_scales(cfg, statistics.image_sizes)
    images = statistics.image_sizes * scales[:, None]
    boxes = statistics.box_sizes * scales[statistics.box_images, None]
    side = np.asarray(crop.SIZE, np.float64)
    side = (side + 1) / 2 if crop.TYPE == "relative_range" else side  # the middle of what is drawn
    sides = side if crop.TYPE == "absolute" else side[1] if crop.TYPE == "absolute_range" else images * side
    if crop.TYPE.startswith("absolute") and (images <= sides).all():
        yield (
            f"INPUT.CROP.SIZE is {list(crop.SIZE)} px, and no training image of {name} is larger at "
            f"INPUT.MIN_SIZE_TRAIN: nothing is cropped. Set it below {_pixels(np.median(images, axis=0))}, or "
            "do not crop (INPUT.CROP.ENABLED)."
        )
    room = np.broadcast_to(sides, images.shape)[statistics.box_images]
    cut = (boxes > room).any(axis=1).mean()
    if cut > 0.5:
        fits = _pixels(np.ceil(np.percentile(boxes, 90, axis=0) / 32) * 32)
        fits = fits if crop.TYPE.startswith("absolute") else "at least [0.5, 0.5]"
        yield (
            f"INPUT.CROP.SIZE is {list(crop.SIZE)}: crops are smaller than {100 * cut:.0f} % of the things of {name} "
            f"at the size of training images, which are never seen whole. Set it to {fits}."
        )


def _pixels(sides: Any) -> str:
    return str([int(side) for side in sides])


def scale_warnings(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Iterator[str]:
    """Warn if images are predicted at a size that is far from those of training."""
    train = np.median(_train_scales(cfg, statistics.image_sizes))
    test = np.median(_scales(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, statistics.image_sizes))
    if not 0.4 < test / train < 2.5:
        larger = "larger" if test > train else "smaller"
        fits = int(np.median(cfg.INPUT.MIN_SIZE_TRAIN))
        yield (
            f"INPUT.MIN_SIZE_TEST is {cfg.INPUT.MIN_SIZE_TEST}: with INPUT.MAX_SIZE_TEST {cfg.INPUT.MAX_SIZE_TEST} "
            f"images of {name} are {max(test / train, train / test):.1f} times {larger} than in training "
            f"(INPUT.MIN_SIZE_TRAIN), where nothing of that size is learnt. Set it to {fits}."
        )


def _train_scales(cfg: CfgNode, image_sizes: Sizes) -> npt.NDArray[np.float64]:
    """By how much training images (N, 2) are enlarged, for the middle one of the sizes: float (N,)."""
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    size = float(np.median([sizes] if isinstance(sizes, int) else list(sizes)))
    return _scales(size, cfg.INPUT.MAX_SIZE_TRAIN, image_sizes)


def _scales(short_side: float, long_side: float, image_sizes: Sizes) -> npt.NDArray[np.float64]:
    """As detectron2's `ResizeShortestEdge`, which leaves images alone for a short side of 0."""
    if short_side == 0:
        return np.ones(len(image_sizes))
    return np.minimum(short_side / image_sizes.min(axis=1), long_side / image_sizes.max(axis=1))
