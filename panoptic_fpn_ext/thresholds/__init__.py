"""The thresholds of the combiner, all settings from one pass of the model over a dataset."""

from .recount import Grid, ThresholdCounts, combine, recount
from .stored import CombinerInputs, record

__all__ = ["CombinerInputs", "Grid", "ThresholdCounts", "combine", "record", "recount"]
