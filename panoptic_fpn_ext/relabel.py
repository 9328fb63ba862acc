"""Replacing the segment ids of a panoptic map."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["relabel"]


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
