"""Panoptic maps, arrays of segment ids: their runs, their check against a list of segments, other numbers for ids."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .structures import VOID_ID

__all__ = ["MAX_UINT8_INDEX", "check_panoptic_map", "relabel", "run_starts", "segment_index_map"]

MAX_UINT8_INDEX = 254
"""Segments that fit into an 8-bit index map; 255 is what transforms pad with."""


def run_starts(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Where, in the flattened map, each run of equal ids begins: an annotated image has a few thousand of them."""
    flat = ids.reshape(-1)
    return np.concatenate([np.zeros(min(1, flat.size), np.int64), np.flatnonzero(flat[1:] != flat[:-1]) + 1])


def relabel(
    ids: npt.NDArray[np.integer], segment_ids: Sequence[int], values: Sequence[int], other: int
) -> npt.NDArray[np.int64]:
    """Replace each segment id of a map by a value.

    Args:
        ids: integers of any shape.
        segment_ids: K different ids.
        values: K values, one for each of these ids.
        other: the value of every id that is not among them.

    Returns:
        int64, the shape of ``ids``.
    """
    order = np.argsort(np.asarray(segment_ids, dtype=np.int64))
    # A sentinel below every id keeps the search in range and makes the empty list no special case.
    keys = np.concatenate([[-1], np.asarray(segment_ids, dtype=np.int64)[order]])
    looked_up = np.concatenate([[other], np.asarray(values, dtype=np.int64)[order]])
    position = np.searchsorted(keys, ids, side="right") - 1
    return np.where(keys[position] == ids, looked_up[position], other)


def segment_index_map(ids: npt.NDArray[np.integer], segment_ids: Sequence[int]) -> npt.NDArray[np.integer]:
    """Replace ids by positions in a list.

    Args:
        ids: segment ids (H, W).
        segment_ids: K different ids.

    Returns:
        (H, W), uint8 if K ≤ ``MAX_UINT8_INDEX``, else int32: k + 1 where ``ids`` is ``segment_ids[k]``, 0 where it is
        none of them.
    """
    starts = run_starts(ids)
    indices = relabel(ids.reshape(-1)[starts], segment_ids, range(1, len(segment_ids) + 1), 0)
    indices = indices.astype(np.uint8 if len(segment_ids) <= MAX_UINT8_INDEX else np.int32)
    return np.repeat(indices, np.diff(starts, append=ids.size)).reshape(ids.shape)


def check_panoptic_map(
    ids: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    file_name: str,
    *,
    has_areas: bool = False,
) -> None:
    """Refuse a panoptic map that does not agree with its list of segments.

    Args:
        ids: segment ids (H, W) as stored, before any transform.
        segments_info: the annotation's segments (``id`` is read).
        file_name: named in the message.
        has_areas: whether ``area`` (px) of those that have one must be right too. Where each image counts its ids from
            1, nothing else tells that the map is another image's.

    Raises:
        ValueError: an id in the map is not listed, a listed one has no pixel, one is listed twice, or a wrong area.
    """
    flat, starts = ids.reshape(-1), run_starts(ids)
    values, runs = np.unique(flat[starts], return_inverse=True)
    areas = np.bincount(runs.reshape(-1), np.diff(starts, append=flat.size), minlength=len(values))
    found = dict(zip(values.tolist(), areas.astype(int).tolist(), strict=True))
    listed = [int(s["id"]) for s in segments_info]
    present = set(found) - {VOID_ID}
    problems = {
        "ids in the PNG that the JSON does not list": sorted(present - set(listed)),
        "listed segments without a pixel": sorted(set(listed) - present),
        "ids listed more than once": sorted({i for i in listed if listed.count(i) > 1}),
    }
    if has_areas:
        wrong = [s for s in segments_info if "area" in s and s["id"] in present and s["area"] != found[s["id"]]]
        what = "segments whose area is another one, as where the PNG is another image's"
        problems[what] = [f"{s['id']} has {found[s['id']]} px, not {s['area']}" for s in wrong]
    text = "; ".join(f"{what}: {bad[:10]} ({len(bad)} in all)" for what, bad in problems.items() if bad)
    if text:
        raise ValueError(
            f"Panoptic map {file_name} does not agree with its annotation: {text}. Mend the JSON or the PNG."
        )
