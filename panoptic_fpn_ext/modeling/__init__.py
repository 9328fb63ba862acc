"""The network: backbones, semantic head, meta-architecture and combiners. Importing registers them with detectron2."""

from . import backbone
from .acceleration import accelerate_training, optimize_for_inference
from .combiner import (
    PANOPTIC_COMBINER_REGISTRY,
    DINCombiner,
    HeuristicCombiner,
    build_panoptic_combiner,
    combine_built_in,
)
from .deform_conv import use_torchvisions_operator
from .panoptic_fpn import PanopticFPNExt
from .rounded_anchors import RoundedAnchorGenerator
from .sem_seg_head import PanopticFPNSemSegHead
from .separate_networks import SeparatePanopticNetworks
from .test_time_augmentation import PanopticFPNWithTTA

__all__ = [
    "PANOPTIC_COMBINER_REGISTRY",
    "DINCombiner",
    "HeuristicCombiner",
    "PanopticFPNExt",
    "PanopticFPNSemSegHead",
    "PanopticFPNWithTTA",
    "RoundedAnchorGenerator",
    "SeparatePanopticNetworks",
    "accelerate_training",
    "backbone",
    "build_panoptic_combiner",
    "combine_built_in",
    "optimize_for_inference",
]

use_torchvisions_operator()
