"""Panoptic maps as runs of equal pixels, together with what the JSON says of their segments.

Shapes: H, W image size, R runs of a map, K listed segments, U known ids (the listed ones and void).
A *label* is the rank of an id among the known ids of its image, so label 0 is void; label U stands for all others.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..panoptic_png import MAX_SEGMENT_ID
from ..structures import VOID_ID

__all__ = [
    "DifferentSizesError",
    "SegmentMap",
    "Segments",
    "as_segment_map",
    "as_segment_maps",
    "check_sizes",
    "parse_segments",
    "sum_by",
    "unique_ids",
]

NO_CATEGORY = -1
ALL_BITS = -1


class Segments(NamedTuple):
    """The K listed segments of one image, in JSON order.

    ``ids`` int64, ``categories`` int64 (index of the category, not its id), ``areas`` float64 in px (NaN where the JSON
    has none), ``crowd`` bool.
    """

    ids: npt.NDArray[np.int64]
    categories: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]


class SegmentMap(NamedTuple):
    """One image: where its runs start (row by row), their labels, and by label (U + 1) its category index and area.

    ``starts`` int32 or int64 (R,), ``labels`` small unsigned (R,), ``ids`` int64 (U,), ``pixels`` float64 (U + 1,),
    ``areas`` float64 (U + 1,): px as the JSON says; ``categories`` int64 (U + 1,), -1 where a label is no segment to
    match; ``crowd_categories``: the same for the crowd segments that forgive; ``listed_categories``: the same for all
    that the JSON lists; ``absent``: listed ids without a pixel;
    ``unlisted``: ids with pixels that are neither listed nor void.
    """

    shape: tuple[int, ...]
    starts: npt.NDArray[np.signedinteger]
    labels: npt.NDArray[np.unsignedinteger]
    ids: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    categories: npt.NDArray[np.int64]
    crowd_categories: npt.NDArray[np.int64]
    listed_categories: npt.NDArray[np.int64]
    absent: list[int]
    unlisted: list[int]

    @property
    def nbytes(self) -> int:
        """Memory that a stored map takes, in bytes."""
        return 1500 + sum(field.nbytes for field in self if isinstance(field, np.ndarray))

    @property
    def num_wrong_areas(self) -> int:
        """How many listed segments have a JSON area other than their number of pixels."""
        return int(np.count_nonzero(self.areas != self.pixels))


def parse_segments(
    infos: Sequence[Mapping[str, Any]], category_index: Mapping[int, int], predicted: bool = False
) -> tuple[Segments, list[str]]:
    """Segments of a ``segments_info`` list, and what is wrong with it (empty for sound data).

    Args:
        infos: dicts with ``id`` and ``category_id`` (dataset id); ground truth has ``iscrowd`` and ``area`` (px) too.
        category_index: dataset id → index in the category list.
        predicted: the list is a prediction's, whose ``iscrowd`` and ``area`` mean nothing.
    """
    ids = [int(info["id"]) for info in infos]
    category_ids = [int(info["category_id"]) for info in infos]
    problems = _find_problems(ids, category_ids, category_index)
    segments = Segments(
        ids=np.array(ids, dtype=np.int64),
        categories=np.array([category_index.get(c, NO_CATEGORY) for c in category_ids], dtype=np.int64),
        areas=np.array([np.nan if predicted else info.get("area", np.nan) for info in infos], dtype=np.float64),
        crowd=np.array([not predicted and info.get("iscrowd", 0) == 1 for info in infos], dtype=np.bool_),
    )
    return segments, problems


def _find_problems(ids: list[int], category_ids: list[int], known_categories: Collection[int]) -> list[str]:
    problems = []
    if len(set(ids)) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})
        problems.append(f"segment ids {_some(twice)} occur more than once in segments_info")
    if ids and not 0 <= min(ids) <= max(ids) <= MAX_SEGMENT_ID:
        outside = sorted({i for i in ids if not 0 <= i <= MAX_SEGMENT_ID})
        problems.append(f"segment ids {_some(outside)} are not in [0, {MAX_SEGMENT_ID}]")
    unknown = [(i, c) for i, c in zip(ids, category_ids, strict=True) if c not in known_categories]
    if unknown:
        pairs = ", ".join(f"{i} (category_id {c})" for i, c in unknown[:5])
        problems.append(f"{len(unknown)} segments have an unknown category: {pairs}")
    return problems


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(str(v) for v in values[:5])
    return f"[{shown}]" if len(values) <= 5 else f"[{shown}, … {len(values)} in all]"


def as_segment_map(ids: npt.NDArray[np.integer], segments: Segments, id_bits: int = ALL_BITS) -> SegmentMap:
    """Runs and by-label tables of a panoptic map.

    Args:
        ids: integers (H, W), segment ids; 0 is void.
        segments: what the JSON lists, without duplicates.
        id_bits: mask of the bits of ``ids`` that are the segment id.

    Raises:
        ValueError: the map is not a non-empty integer array of two dimensions.
    """
    starts = np.flatnonzero(_changes(ids))
    return _tabulate(ids, segments, starts, id_bits)._replace(starts=starts.astype(np.int32))


def as_segment_maps(
    gt_ids: npt.NDArray[np.integer],
    gt: Segments,
    pred_ids: npt.NDArray[np.integer],
    pred: Segments,
    gt_id_bits: int = ALL_BITS,
) -> tuple[SegmentMap, SegmentMap]:
    """Two maps to compare; as :func:`as_segment_map`, with one array of starts for both, which is cheaper.

    Raises:
        ValueError: as there, or the maps' sizes differ.
    """
    check_sizes(gt_ids.shape, pred_ids.shape)
    changes = _changes(gt_ids)
    changes |= _changes(pred_ids)
    starts = np.flatnonzero(changes)
    return _tabulate(gt_ids, gt, starts, gt_id_bits), _tabulate(pred_ids, pred, starts)


class DifferentSizesError(ValueError):
    """Ground truth and prediction of an image are of different sizes."""


def check_sizes(gt_shape: tuple[int, ...], pred_shape: tuple[int, ...]) -> None:
    """``DifferentSizesError`` when the shapes (H, W) of two maps differ."""
    if gt_shape != pred_shape:
        raise DifferentSizesError(f"the prediction has {pred_shape} pixels (H, W), the ground truth {gt_shape}")


def _changes(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Bool (H * W,): where a pixel is not as the one before."""
    if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"the panoptic map must be a non-empty integer array (H, W), got {ids.dtype} {ids.shape}")
    flat = ids.reshape(-1)
    differs = np.empty(flat.size, dtype=np.bool_)
    differs[0] = True
    np.not_equal(flat[1:], flat[:-1], out=differs[1:])
    return differs


def _tabulate(
    ids: npt.NDArray[np.integer], segments: Segments, starts: npt.NDArray[np.intp], id_bits: int = ALL_BITS
) -> SegmentMap:
    values = ids.reshape(-1)[starts].astype(np.int64) & id_bits
    known = np.union1d(segments.ids, [VOID_ID])
    labels = _label(values, known)
    pixels = sum_by(labels, np.diff(starts, append=ids.size), len(known) + 1)
    rows = np.searchsorted(known, segments.ids)
    areas, listed = pixels.copy(), np.full(len(known) + 1, NO_CATEGORY)
    areas[rows] = np.where(np.isnan(segments.areas), pixels[rows], segments.areas)
    listed[rows] = segments.categories
    categories = listed.copy()
    categories[rows[segments.crowd]] = NO_CATEGORY
    return SegmentMap(
        shape=ids.shape,
        starts=starts,
        labels=labels.astype(np.min_scalar_type(len(known))),
        ids=known,
        pixels=pixels,
        areas=areas,
        categories=categories,
        crowd_categories=_crowd_categories(segments, rows, len(categories)),
        listed_categories=listed,
        absent=segments.ids[pixels[rows] == 0].tolist(),
        unlisted=np.unique(values[labels == len(known)]).tolist() if pixels[-1] else [],
    )


def sum_by(keys: npt.NDArray[np.integer], weights: npt.NDArray[Any], num_keys: int = 0) -> npt.NDArray[np.float64]:
    """Sum of the weights of each key, float64 (num_keys or more,), added one by one in order."""
    return np.asarray(np.bincount(keys, weights, minlength=num_keys), dtype=np.float64)


def unique_ids(ids: npt.NDArray[np.integer]) -> list[int]:
    """The ids that occur in a panoptic map, integers (H, W), ascending: ``np.unique`` of its runs only."""
    return [int(i) for i in np.unique(ids.reshape(-1)[_changes(ids)])]


def _label(values: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    bounded = np.append(known, np.iinfo(np.int64).max)  # so that every value has a place to compare with
    labels = np.searchsorted(bounded, values)
    unlisted = bounded[labels] != values
    if unlisted.any():
        labels[unlisted] = len(known)
    return labels


def _crowd_categories(segments: Segments, rows: npt.NDArray[np.intp], num_labels: int) -> npt.NDArray[np.int64]:
    """Category by label of the crowd segments that count: of several in one category only the last in JSON order."""
    result = np.full(num_labels, NO_CATEGORY)
    crowd = np.flatnonzero(segments.crowd)
    last = dict(zip(segments.categories[crowd].tolist(), rows[crowd].tolist(), strict=True))
    for category, label in last.items():
        result[label] = category
    return result
