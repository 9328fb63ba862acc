"""Everything that is made faster: which module, by what, when, and the test that shows that results stay the same.

A row is all that a new fast path needs beside its own file and test. Rows are applied from top to bottom, by
:func:`.training.accelerate_training` and :func:`.inference.optimize_for_inference`.
"""

from typing import Final

from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from detectron2.modeling import FPN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from .activation import follows_layer, has_relu_function, rectify_in_place, use_inplace_relu
from .anchors import OnDeviceAnchorGenerator
from .batch_norm import InPlaceFrozenBatchNorm2d, fold_batch_norm, follows_convolution, has_constant_norm
from .bfloat16 import use_bfloat16
from .box_head import ChannelsLastFlatten, ChannelsLastROIPooler, feeds_box_head
from .convolution import NarrowingConv2d, has_pytorchs_layout, is_narrowing, use_channels_last
from .fpn import InPlaceFPN
from .mask_head import PredictedClassMaskHead
from .replace import Acceleration, When
from .residual import InPlaceBottleneckBlock, may_overwrite_shortcut
from .roi_align import GatheringROIAlign, TrainingROIAlign
from .rpn_head import PerImageRPNHead
from .winograd import FastestConv2d, has_choice

__all__ = ["ACCELERATIONS"]

ACCELERATIONS: Final = (
    # -- training --
    Acceleration(
        (FrozenBatchNorm2d,),
        InPlaceFrozenBatchNorm2d,
        When.TRAINING,
        "test_batch_norm.py::test_norms_in_place_change_nothing",
        fits=follows_convolution,
    ),
    Acceleration(
        (StandardRPNHead,),
        PerImageRPNHead,
        When.TRAINING,
        "test_rpn_head.py::test_same_predictions_and_gradients",
    ),
    Acceleration(
        (ROIAlign,),
        TrainingROIAlign,
        When.TRAINING,
        "test_roi_align.py::test_same_gradients_as_torchvision",
    ),
    Acceleration(
        (DefaultAnchorGenerator,),
        OnDeviceAnchorGenerator,
        When.TRAINING,
        "test_anchors.py::test_same_anchors_as_detectron2",
    ),
    # -- inference: norms first, since bare convolutions can do more --
    Acceleration(
        (Conv2d,),
        fold_batch_norm,
        When.INFERENCE | When.BFLOAT16,
        "test_batch_norm.py::test_folding_keeps_the_result",
        fits=has_constant_norm,
        with_subclasses=True,
    ),
    Acceleration(
        (Conv2d,),
        use_inplace_relu,
        When.INFERENCE | When.BFLOAT16,
        "test_activation.py::test_relus_in_place_change_nothing",
        fits=has_relu_function,
        with_subclasses=True,
    ),
    Acceleration(
        (nn.ReLU, nn.ReLU6),
        rectify_in_place,
        When.INFERENCE | When.BFLOAT16,
        "test_activation.py::test_relus_in_place_change_nothing",
        fits=follows_layer,
    ),
    Acceleration(
        (Conv2d, nn.Conv2d),
        FastestConv2d,
        When.INFERENCE,
        "test_convolution.py::test_all_algorithms_agree",
        fits=has_choice,
    ),
    Acceleration(
        (nn.Conv2d,),
        use_channels_last,
        When.INFERENCE | When.BFLOAT16,
        "test_convolution.py::test_channels_last",
        fits=has_pytorchs_layout,
        with_subclasses=True,
    ),
    Acceleration(
        (Conv2d, nn.Conv2d),
        NarrowingConv2d,
        When.INFERENCE,
        "test_convolution.py::test_products",
        fits=is_narrowing,
    ),
    Acceleration(
        (BottleneckBlock,),
        InPlaceBottleneckBlock,
        When.INFERENCE,
        "test_residual.py::test_same_as_detectron2",
        fits=may_overwrite_shortcut,
    ),
    Acceleration(
        (nn.Flatten,),
        ChannelsLastFlatten,
        When.INFERENCE | When.BFLOAT16,
        "test_roi_heads.py::test_box_head",
        fits=feeds_box_head,
    ),
    Acceleration(
        (FPN,),
        InPlaceFPN,
        When.INFERENCE | When.BFLOAT16,
        "test_fpn.py::test_same_as_detectron2",
    ),
    Acceleration(
        (MaskRCNNConvUpsampleHead,),
        PredictedClassMaskHead,
        When.INFERENCE | When.BFLOAT16,
        "test_roi_heads.py::test_mask_head",
    ),
    Acceleration(
        (ROIAlign, TrainingROIAlign),
        GatheringROIAlign,
        When.INFERENCE | When.BFLOAT16,
        "test_roi_align.py::test_same_as_torchvision",
    ),
    Acceleration(
        (ROIPooler,),
        ChannelsLastROIPooler,
        When.INFERENCE | When.BFLOAT16,
        "test_roi_heads.py::test_pooler",
    ),
    # -- inference in bfloat16: last, since the rows above work on weights of float32 --
    Acceleration(
        (nn.Conv2d, nn.ConvTranspose2d, nn.Linear),
        use_bfloat16,
        When.BFLOAT16,
        "test_bfloat16.py::test_layers_compute_in_bfloat16_and_coordinates_in_float32",
        with_subclasses=True,
    ),
)
"""All rows; tests are named below ``tests/modeling/acceleration``."""
