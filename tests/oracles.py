"""Slow, obvious twins of the fast paths."""

import torch
from torch.nn import functional as F


def upsampled_cross_entropy_plain(logits, targets, scale_factor, ignore_value):
    """What `modeling.losses.upsampled_cross_entropy` must equal, with every tensor at full size."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    upsampled = F.interpolate(precise, scale_factor=scale_factor, mode="bilinear", align_corners=False)
    loss_sum = F.cross_entropy(upsampled, targets, reduction="sum", ignore_index=ignore_value)
    return loss_sum / (targets != ignore_value).sum().clamp(min=1)


def panoptic_targets_plain(rgb, segments_info, categories):
    """Targets of a transformed panoptic picture, one full-size mask a segment."""
    r, g, b = (torch.from_numpy(rgb[..., c].astype("int64")) for c in range(3))
    ids = r + 256 * g + 256 * 256 * b
    sem_seg = torch.full(ids.shape, 255)
    masks, classes, boxes = [torch.zeros(0, *ids.shape, dtype=torch.bool)], [], [torch.zeros(0, 4)]
    for segment in segments_info:
        mask = ids == segment["id"]
        sem_seg[mask] = categories.semantic_id(categories.dataset_id(segment["category_id"], segment["isthing"]))
        if segment["isthing"] and not segment["iscrowd"] and mask.any():
            y, x = torch.where(mask)
            boxes.append(torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]]).float())
            masks.append(mask[None])
            classes.append(segment["category_id"])
    return {"sem_seg": sem_seg, "masks": torch.cat(masks), "classes": classes, "boxes": torch.cat(boxes)}
