"""A loss of the semantic branch that is about what stuff counts by in PQ: the IoU of a class in an image.

Shapes: N images, C classes, h, w logits, s = scale factor, H = s·h, W = s·w targets.
"""

import torch

__all__ = ["jaccard_loss"]


def jaccard_loss(logits: torch.Tensor, targets: torch.Tensor, scale_factor: int, ignore_value: int) -> torch.Tensor:
    """1 - IoU of probabilities and targets, averaged over the classes that an image shows, then over the images.

    It is the Jaccard metric loss of Wang et al. ("Jaccard Metric Losses", NeurIPS 2023), whose targets may be shares:
    with p and t of a class in an image, IoU is (‖p‖ + ‖t‖ - ‖p - t‖) / (‖p‖ + ‖t‖ + ‖p - t‖), sums over the
    pixels. A target at the size of the logits is the share of its s·s px that have the class, so nothing is upsampled.
    Pixels without a label take no part, and an image that has no other ones has the loss 0.

    Args:
        logits: floats (N, C, h, w). Half precision is computed in float32.
        targets: int64 (N, s·h, s·w), in [0, C) or ``ignore_value``.
        scale_factor: s.
        ignore_value: label of pixels that take no part.

    Returns:
        A scalar in [0, 1], float32 or float64.
    """
    with torch.autocast(logits.device.type, enabled=False):
        precise = logits if logits.dtype == torch.float64 else logits.float()
        shares = _shares(precise, targets, scale_factor, ignore_value)
        probs = precise.softmax(dim=1) * shares.sum(dim=1, keepdim=True)
        total = (probs + shares).sum(dim=(2, 3))  # N, C
        apart = (probs - shares).abs().sum(dim=(2, 3))
        shown = shares.sum(dim=(2, 3)) > 0
        loss = 2 * apart / (total + apart).clamp(min=torch.finfo(precise.dtype).tiny)
        by_image = (loss * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
        return by_image.mean()


def _shares(like: torch.Tensor, targets: torch.Tensor, scale: int, ignore_value: int) -> torch.Tensor:
    """Share of the pixels of each logit that have a class, as ``like``: (N, C, h, w)."""
    labelled = targets != ignore_value
    weights = labelled.to(like.dtype) / scale**2
    classes = torch.where(labelled, targets, 0)
    shares = torch.zeros_like(like, requires_grad=False)
    for y in range(scale):
        for x in range(scale):
            part = slice(None), slice(y, None, scale), slice(x, None, scale)
            shares.scatter_add_(1, classes[part][:, None], weights[part][:, None])
    return shares
