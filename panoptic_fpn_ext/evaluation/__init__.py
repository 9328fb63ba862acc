"""Panoptic Quality: exact, streaming, distributed."""

from .files import pq_compute
from .panoptic_evaluator import PanopticQualityEvaluator
from .panoptic_quality import PQCounts, count_panoptic_quality

__all__ = ["PQCounts", "PanopticQualityEvaluator", "count_panoptic_quality", "pq_compute"]
