"""Scores of predicted segments, where a prediction has some."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["set_scores"]


def set_scores(rows: npt.NDArray[np.void], segments: Sequence[Mapping[str, Any]]) -> None:
    """Write the scores of predicted segments, where they have some, into the table of their image.

    Raises:
        ValueError: a score that is no finite number.
    """
    scores = {segment["id"]: segment["score"] for segment in segments if segment.get("score") is not None}
    for id_, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"prediction: the score of segment {id_} must be a number, got {score!r}")
    if scores:
        predicted = rows["predicted"]
        rows["score"][predicted] = [scores.get(id_, np.nan) for id_ in rows["id"][predicted].tolist()]
