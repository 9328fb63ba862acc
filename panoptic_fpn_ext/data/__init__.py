"""Data sets, targets and the mapper that joins them."""

from .coco_panoptic import load_coco_panoptic, register_coco_panoptic
from .dataset_mapper import PanopticDatasetMapper
from .targets import panoptic_targets

__all__ = ["PanopticDatasetMapper", "load_coco_panoptic", "panoptic_targets", "register_coco_panoptic"]
