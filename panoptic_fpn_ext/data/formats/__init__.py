"""From what annotation tools and datasets have to COCO panoptic format: one table of formats, one way to write.

A format is a function that reads files into a :class:`~.regions.Source`; ``python -m panoptic_fpn_ext.data.convert``
and ``train_net.py --data`` make their arguments from its signature.
"""

from collections.abc import Callable
from typing import Final

from .ade20k import read_ade20k
from .binary_masks import read_masks
from .cityscapes import read_cityscapes, read_kitti, read_kitti_step
from .coco import read_coco
from .conversion import Conversion, Report, convert
from .cvat import read_cvat
from .id_maps import read_coco_stuff, read_encoded, read_semantic_instance
from .label_studio import read_label_studio
from .labelme import read_labelme
from .labels import LabelOptions, Labels, choose_labels
from .mapillary import read_mapillary
from .regions import Region, Source, SourceImage
from .registered import read_panoptic, read_registered
from .voc import read_voc
from .yolo import read_yolo

__all__ = [
    "FORMATS",
    "Conversion",
    "LabelOptions",
    "Labels",
    "Region",
    "Report",
    "Source",
    "SourceImage",
    "choose_labels",
    "convert",
]

FORMATS: Final[dict[str, Callable[..., Source]]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "labelme": read_labelme,
    "yolo": read_yolo,
    "cityscapes": read_cityscapes,
    "mapillary": read_mapillary,
    "ade20k": read_ade20k,
    "voc": read_voc,
    "kitti": read_kitti,
    "kitti-step": read_kitti_step,
    "coco-stuff": read_coco_stuff,
    "encoded": read_encoded,
    "semantic-instance": read_semantic_instance,
    "masks": read_masks,
    "registered": read_registered,
    "panoptic": read_panoptic,
}
"""Readers by the name that the command line has for their format."""
