"""Where two maps of runs overlap: the pairs of labels that share pixels."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .segments import SegmentMap, sum_by

__all__ = ["CommonRuns", "common_runs"]

_MAX_CELLS = 1 << 20  # labels × labels up to which a dense histogram is the fastest one


class CommonRuns(NamedTuple):
    """Runs in which neither map changes (M), some of them perhaps empty.

    ``starts`` (M,): row by row; ``pixels`` intp (M,); ``keys`` intp (M,): ground-truth label × ``width`` + predicted
    label, below ``num_keys``.
    """

    starts: npt.NDArray[np.signedinteger]
    pixels: npt.NDArray[np.intp]
    keys: npt.NDArray[np.intp]
    width: int
    num_keys: int

    def overlaps(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Pairs of labels that share pixels, ordered by (ground truth, prediction), and how many pixels they share."""
        cells, shared = _histogram(self.keys, self.pixels, self.num_keys)
        return cells // self.width, cells % self.width, shared

    def without_empty(self) -> "CommonRuns":
        """The same without runs that have no pixel."""
        full = self.pixels > 0
        if full.all():
            return self
        return self._replace(starts=self.starts[full], pixels=self.pixels[full], keys=self.keys[full])

    def pair_of_run(self, gt: npt.NDArray[np.intp], pred: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Which of the pairs of :meth:`overlaps` each run is of, (M,); none may be empty."""
        pairs = gt * self.width + pred
        if self.num_keys > _MAX_CELLS:
            return np.searchsorted(pairs, self.keys)
        table = np.zeros(self.num_keys, np.intp)
        table[pairs] = np.arange(len(pairs))
        return table.take(self.keys)


def common_runs(gt: SegmentMap, pred: SegmentMap) -> CommonRuns:
    """Cut two maps of one size into the runs in which neither changes."""
    size = gt.shape[0] * gt.shape[1]
    starts: npt.NDArray[Any] = gt.starts
    gt_run: npt.NDArray[np.intp] | slice = slice(None)
    pred_run: npt.NDArray[np.intp] | slice = slice(None)
    if gt.starts is not pred.starts:
        starts = np.concatenate((gt.starts, pred.starts))
        order = np.argsort(starts, kind="stable")  # a merge: both are sorted
        gt_run = np.cumsum(order < len(gt.starts)) - 1
        pred_run = np.arange(len(starts)) - gt_run - 1
        starts = starts[order]
    width = len(pred.pixels)
    keys = gt.labels[gt_run].astype(np.intp) * width + pred.labels[pred_run]
    return CommonRuns(starts, np.diff(starts, append=size), keys, width, len(gt.pixels) * width)


def _histogram(
    keys: npt.NDArray[np.intp], weights: npt.NDArray[np.intp], num_keys: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The keys with weight, ascending, and the sums of their weights (exact below 2⁵³)."""
    if num_keys <= _MAX_CELLS:
        counts = sum_by(keys, weights)
        cells = np.flatnonzero(counts)
        return cells, counts[cells]
    cells, inverse = np.unique(keys, return_inverse=True)
    counts = sum_by(inverse, weights)
    return cells[counts > 0], counts[counts > 0]
