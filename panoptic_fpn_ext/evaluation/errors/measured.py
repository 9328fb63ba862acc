"""What the errors of an image are told from: few numbers by label and by pair of labels, measured on its runs.

Shapes: U known ids of a map and one for all others (see ``segments.py`` for *label*), P pairs of labels that share
pixels. Tables of several images stand one behind the other, so that small ones are worked on together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..panoptic_quality import Comparison
from ..segments import NO_CATEGORY, SegmentMap, sum_by
from .shapes import boxes, find_edges, near_edges, touching

__all__ = ["UNLISTED", "Joined", "Labels", "Measured", "join", "measure"]

UNLISTED = -1
"""Id of the label that stands for all ids that are not listed."""

_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


class Labels(NamedTuple):
    """By label of one map (U + 1): id, pixels, index of the category as ``SegmentMap.categories`` and
    ``listed_categories``, and whether it is a false negative or a false positive.
    """

    ids: _Ints
    pixels: _Floats
    categories: _Ints
    listed: _Ints
    open: _Bools


class Measured(NamedTuple):
    """Ground truth and prediction side by side.

    By label of the prediction: ``on_void`` (px). By label of the ground truth: ``touches``, a thing beside or above
    another one. By pair: the labels ``first`` and ``second``, ``pixels``, ``union``, ``iou`` and ``hit`` as PQ counts
    them, ``near`` (px of runs whose middle is near an edge of the ground truth), ``sides`` int32 (4, P), see
    ``shapes.boxes``.
    """

    gt: Labels
    pred: Labels
    on_void: _Floats
    touches: _Bools
    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    pixels: _Floats
    union: _Floats
    iou: _Floats
    hit: _Bools
    near: _Floats
    sides: npt.NDArray[np.int32]


def measure(gt: SegmentMap, pred: SegmentMap, compared: Comparison, isthing: _Bools) -> Measured:
    """Measure one image.

    Args:
        gt, pred: the maps.
        compared: ``compare_image`` of them.
        isthing: bool by category index.

    Raises:
        ValueError: an area in the ground truth's JSON gives a segment two matches or an IoU above 1.
    """
    if compared.counts.num_wrong_areas:
        _check_areas(gt, compared)
    runs = compared.runs if gt.starts is pred.starts else compared.runs.without_empty()
    edges, number = find_edges(gt), len(compared.gt)
    pair_of_run = runs.pair_of_run(compared.gt, compared.pred)
    near = sum_by(pair_of_run, runs.pixels * near_edges(edges, gt.shape, runs.starts + runs.pixels // 2), number)
    sides = boxes(pair_of_run, number, runs.starts, runs.pixels, gt.shape[1])
    things = (gt.listed_categories != NO_CATEGORY) & isthing[gt.listed_categories]
    return Measured(
        _labels(gt, compared.missed),
        _labels(pred, compared.wrong),
        compared.on_void,
        touching(edges, things),
        compared.gt,
        compared.pred,
        compared.pixels,
        compared.union,
        compared.iou,
        compared.hit,
        near,
        sides,
    )


def _labels(segments: SegmentMap, open_: _Bools) -> Labels:
    return Labels(segments.ids, segments.pixels, segments.categories, segments.listed_categories, open_)


def _check_areas(gt: SegmentMap, compared: Comparison) -> None:
    hit = compared.gt[compared.hit]
    iou = compared.iou[compared.hit]
    if (len(hit) > 1 and (hit[1:] == hit[:-1]).any()) or (len(iou) and iou.max() > 1):
        label = int(hit[iou > 1][0]) if iou.max() > 1 else int(hit[1:][hit[1:] == hit[:-1]][0])
        raise ValueError(
            f"ground truth: the area of segment {gt.ids[label]} is {gt.areas[label]:g} px in the JSON, and its mask "
            f"has {gt.pixels[label]:g}, so that its losses cannot be told; correct the JSON"
        )


class Joined(NamedTuple):
    """Several images: their tables, labels counted on from image to image, and which image each label is of."""

    tables: Measured
    image_of_gt: _Ints
    image_of_pred: _Ints
    number: int


def join(images: Sequence[Measured]) -> Joined:
    """The tables of several images, at least one, as one."""
    sizes = [np.array([len(getattr(image, side).pixels) for image in images]) for side in ("gt", "pred")]
    pairs = np.array([len(image.first) for image in images])
    before = [np.repeat(np.cumsum(size) - size, pairs) for size in sizes]
    columns = {name: _column(images, name) for name in Measured._fields[2:-1]}
    tables = Measured(
        gt=_join_labels([image.gt for image in images]),
        pred=_join_labels([image.pred for image in images]),
        sides=np.concatenate([image.sides for image in images], axis=1),
        **columns,
    )
    tables = tables._replace(first=tables.first + before[0], second=tables.second + before[1])
    of_gt, of_pred = (np.repeat(np.arange(len(images)), size) for size in sizes)
    return Joined(tables, of_gt, of_pred, len(images))


def _join_labels(images: Sequence[Labels]) -> Labels:
    unlisted = np.array([UNLISTED])
    ids = np.concatenate([part for image in images for part in (image.ids, unlisted)])
    return Labels(ids, *(_column(images, name) for name in Labels._fields[1:]))


def _column(images: Sequence[Any], name: str) -> Any:
    return np.concatenate([getattr(image, name) for image in images])
