"""Slow, obvious twins of the fast paths."""

import torch
from torch.nn import functional as F


def upsampled_cross_entropy_plain(logits, targets, scale_factor, ignore_value):
    """What `modeling.losses.upsampled_cross_entropy` must equal, with every tensor at full size."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    upsampled = F.interpolate(precise, scale_factor=scale_factor, mode="bilinear", align_corners=False)
    loss_sum = F.cross_entropy(upsampled, targets, reduction="sum", ignore_index=ignore_value)
    return loss_sum / (targets != ignore_value).sum().clamp(min=1)
