"""Why points of PQ are lost, by class and cause: one table of segments an image, and what is counted from it.

:func:`explain_files` does it for predictions on disk. The causes are defined in :mod:`.causes`, and :mod:`.costs`
proves that their costs sum to 100 - PQ.
"""

from .analysis import ImageErrors, PanopticErrors, SegmentErrors
from .bootstrap import Intervals, bootstrap, bootstrap_difference
from .calibration import Calibration, calibrate
from .causes import CAUSES, COLUMNS
from .costs import GROUPS, Losses
from .difference import Difference, compare_models
from .files import explain_files
from .image import SEGMENT_DTYPE, explain_image
from .strata import STRATA, Stratum, strata

__all__ = [
    "CAUSES",
    "COLUMNS",
    "GROUPS",
    "SEGMENT_DTYPE",
    "STRATA",
    "Calibration",
    "Difference",
    "ImageErrors",
    "Intervals",
    "Losses",
    "PanopticErrors",
    "SegmentErrors",
    "Stratum",
    "bootstrap",
    "bootstrap_difference",
    "calibrate",
    "compare_models",
    "explain_files",
    "explain_image",
    "strata",
]
