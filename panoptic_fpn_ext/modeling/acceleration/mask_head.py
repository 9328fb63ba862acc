"""Masks of the predicted classes only.

detectron2's mask head predicts a mask of every class for each detection and then takes one. Here the last two layers,
the deconvolution and the 1×1 convolution, are products for a few detections at a time, of which the second has one
class; what lies between them stays in the cache.

Shapes: R detections, C input channels, D of the deconvolution, M side of the input, 2·M of a mask.
"""

import torch
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_inference
from detectron2.structures import Instances
from torch.nn import functional as F

from .cpu import is_usual

__all__ = ["PredictedClassMaskHead"]

_ROIS_AT_A_TIME = 8


class PredictedClassMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's `MaskRCNNConvUpsampleHead`, which computes no mask that is thrown away."""

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> list[Instances]:
        """Give instances their ``pred_masks``: float (R, C, M, M) → float (R, 1, 2·M, 2·M), probabilities."""
        if not is_usual(x):
            usual: list[Instances] = super().forward(x, instances)
            return usual
        for conv in self.conv_norm_relus:
            x = conv(x)
        classes = torch.cat([one.pred_classes for one in instances])
        if self.predictor.out_channels == 1:  # the same masks for all classes
            classes = torch.zeros_like(classes)
        mask_rcnn_inference(self._logits(x, classes), instances)
        return instances

    def _logits(self, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """float (R, C, M, M) and int64 (R,) → float (R, 1, 2·M, 2·M)."""
        height, width = x.shape[2:]
        blocks = self.deconv.weight.permute(0, 2, 3, 1).flatten(1)  # C, 2 · 2 · D
        block_bias = self.deconv.bias.repeat(4)
        of_class = self.predictor.weight.flatten(1)[classes, :, None]  # R, D, 1
        logits = x.new_empty(len(x), height * width * 4, 1)
        for some, weight, result in zip(*(part.split(_ROIS_AT_A_TIME) for part in (x, of_class, logits)), strict=True):
            upsampled = F.relu_(torch.matmul(some.flatten(2).transpose(1, 2), blocks).add_(block_bias))
            torch.bmm(upsampled.view(len(some), height * width * 4, -1), weight, out=result)
        logits += self.predictor.bias[classes, None, None]
        return logits.view(-1, height, width, 2, 2).transpose(2, 3).reshape(-1, 1, 2 * height, 2 * width)
