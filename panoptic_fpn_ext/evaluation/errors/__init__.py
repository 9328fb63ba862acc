"""Why points of PQ are lost, by class and cause: one table of segments an image, and what is counted from it.

:func:`explain_files` does it for predictions on disk. The causes are defined in :mod:`.causes`, and :mod:`.costs`
proves that their costs sum to 100 - PQ.
"""

from .analysis import ImageErrors, PanopticErrors, SegmentErrors
from .causes import CAUSES, COLUMNS
from .costs import GROUPS, Losses
from .files import explain_files
from .image import SEGMENT_DTYPE, explain_image

__all__ = [
    "CAUSES",
    "COLUMNS",
    "GROUPS",
    "SEGMENT_DTYPE",
    "ImageErrors",
    "Losses",
    "PanopticErrors",
    "SegmentErrors",
    "explain_files",
    "explain_image",
]
