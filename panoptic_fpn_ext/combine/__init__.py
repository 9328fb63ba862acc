"""Instance and semantic results on disk, of any models, merged into panoptic ones.

``python -m panoptic_fpn_ext.combine`` and :func:`combine_files` do what panopticapi's
``combine_semantic_and_instance_predictions`` does.
"""

from .files import CombineOptions, combine_files
from .image import combine_image

__all__ = ["CombineOptions", "combine_files", "combine_image"]
