"""Procedures that merge instances and semantics into one panoptic map."""

from .build import PANOPTIC_COMBINER_REGISTRY, build_panoptic_combiner
from .built_in import combine_built_in
from .din import DINCombiner
from .heuristic import HeuristicCombiner

__all__ = [
    "PANOPTIC_COMBINER_REGISTRY",
    "DINCombiner",
    "HeuristicCombiner",
    "build_panoptic_combiner",
    "combine_built_in",
]
