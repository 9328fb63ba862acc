"""The network: backbones, semantic head, meta-architecture and combiners. Importing registers them with detectron2."""

from . import backbone
from .combiner import PANOPTIC_COMBINER_REGISTRY, HeuristicCombiner, build_panoptic_combiner
from .inference import optimize_for_inference
from .panoptic_fpn import PanopticFPNExt
from .sem_seg_head import PanopticFPNSemSegHead
from .separate_networks import SeparatePanopticNetworks

__all__ = [
    "PANOPTIC_COMBINER_REGISTRY",
    "HeuristicCombiner",
    "PanopticFPNExt",
    "PanopticFPNSemSegHead",
    "SeparatePanopticNetworks",
    "backbone",
    "build_panoptic_combiner",
    "optimize_for_inference",
]
