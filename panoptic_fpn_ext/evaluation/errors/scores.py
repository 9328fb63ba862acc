"""Scores of predicted segments, where a prediction has some."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["read_scores", "set_scores"]


def read_scores(segments: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By id, the scores of predicted segments, of those that have one.

    Raises:
        ValueError: a score that is no finite number.
    """
    scores = {segment["id"]: segment["score"] for segment in segments if segment.get("score") is not None}
    for id_, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"prediction: the score of segment {id_} must be a number, got {score!r}")
    return scores


def set_scores(rows: npt.NDArray[np.void], scores: Mapping[int, float]) -> None:
    """Write the scores of predicted segments into the table of their image."""
    if scores:
        predicted = rows["predicted"]
        rows["score"][predicted] = [scores.get(id_, np.nan) for id_ in rows["id"][predicted].tolist()]
