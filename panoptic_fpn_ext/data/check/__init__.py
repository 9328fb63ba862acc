"""Is a dataset in COCO panoptic format sound? Everything that is wrong, in one pass on all cores."""

from .findings import KINDS, Findings
from .runner import Result, check_dataset, check_sample

__all__ = ["KINDS", "Findings", "Result", "check_dataset", "check_sample"]
