"""The network: semantic head, meta-architecture and combiners. Importing it registers them with detectron2."""

from .backbone import build_narrow_resnet_backbone, build_narrow_resnet_fpn_backbone
from .combiner import PANOPTIC_COMBINER_REGISTRY, HeuristicCombiner, build_panoptic_combiner
from .panoptic_fpn import PanopticFPNExt
from .sem_seg_head import PanopticFPNSemSegHead

__all__ = [
    "PANOPTIC_COMBINER_REGISTRY",
    "HeuristicCombiner",
    "PanopticFPNExt",
    "PanopticFPNSemSegHead",
    "build_narrow_resnet_backbone",
    "build_narrow_resnet_fpn_backbone",
    "build_panoptic_combiner",
]
