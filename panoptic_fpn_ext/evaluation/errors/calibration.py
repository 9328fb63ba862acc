"""Whether scores mean what they say: of the segments with a score of 0.9, nine in ten should match."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .causes import IGNORED, MATCHED

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predicted segments with a score, by equal intervals of it (K).

    ``edges`` (K + 1,); ``count``, ``matched`` int64 (K,); ``score`` (K,): the mean, NaN in an empty interval.
    ``error``: the expected calibration error, mean |precision - mean score| over all segments (Naeini et al., AAAI
    2015), NaN without segments.
    """

    edges: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]
    matched: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    error: float


def calibrate(rows: npt.NDArray[np.void], num_bins: int = 10) -> Calibration:
    """Calibration of the scores of predicted segments, ``SEGMENT_DTYPE`` (N,); what PQ ignores is left out.

    Raises:
        ValueError: scores outside [0, 1].
    """
    used = rows[rows["predicted"] & ~np.isnan(rows["score"]) & (rows["cause"] != IGNORED)]
    scores, matched = used["score"].astype(np.float64), used["cause"] == MATCHED
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(
            f"Scores must be in [0, 1] to be calibrated, got [{scores.min():g}, {scores.max():g}]; divide them first."
        )
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    hits = np.bincount(bins[matched], minlength=num_bins)
    total = np.bincount(bins, scores, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean = total / count
    error = float(np.abs(hits - total).sum() / len(scores)) if len(scores) else float("nan")
    return Calibration(np.linspace(0, 1, num_bins + 1), count, hits, mean, error)
