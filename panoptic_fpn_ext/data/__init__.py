"""Datasets, targets and the mapper that joins them."""

from ..image_files import image_channels, read_image, to_input_format
from .coco_panoptic import describe_coco_panoptic, load_coco_panoptic, register_coco_panoptic
from .dataset_mapper import PanopticDatasetMapper
from .panoptic_catalog import dataset_categories
from .targets import panoptic_targets

__all__ = [
    "PanopticDatasetMapper",
    "dataset_categories",
    "describe_coco_panoptic",
    "image_channels",
    "load_coco_panoptic",
    "panoptic_targets",
    "read_image",
    "register_coco_panoptic",
    "to_input_format",
]
