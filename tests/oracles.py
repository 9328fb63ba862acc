"""Slow twins: the obvious way to do what the package does fast, written with detectron2's own functions."""

from collections.abc import Sequence

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from panoptic_fpn_ext.structures import THINGS_SEM_SEG_ID, VOID_ID, PanopticPrediction, SegmentInfo


def combine_plain(
    instances: Instances,
    sem_seg_logits: torch.Tensor,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    *,
    overlap_threshold: float = 0.5,
    stuff_area_threshold: int = 4096,
    instance_score_threshold: float = 0.5,
    thing_sem_seg_ids: Sequence[int] = (THINGS_SEM_SEG_ID,),
    sem_seg_stride: int = 4,
    mask_threshold: float = 0.5,
) -> PanopticPrediction:
    """`HeuristicCombiner` with everything at output size."""
    labels = upsample_plain(sem_seg_logits, sem_seg_stride, image_size, output_size).argmax(dim=0)
    panoptic_seg = torch.full(output_size, VOID_ID, dtype=torch.int32)
    segments_info: list[SegmentInfo] = []
    detections = postprocess_plain(instances, output_size, mask_threshold)
    for index in torch.argsort(-detections.scores).tolist():
        score, mask = detections.scores[index].item(), detections.pred_masks[index]
        free = mask & (panoptic_seg == VOID_ID)
        area, free_area = int(mask.sum()), int(free.sum())
        if score < instance_score_threshold or free_area == 0 or (area - free_area) / area > overlap_threshold:
            continue
        panoptic_seg[free] = segment_id = len(segments_info) + 1
        category_id = int(detections.pred_classes[index])
        segments_info.append(
            SegmentInfo(id=segment_id, isthing=True, score=score, category_id=category_id, instance_id=index)
        )
    free = panoptic_seg == VOID_ID
    for label in range(len(sem_seg_logits)):
        region = free & (labels == label)
        area = int(region.sum())
        if label in thing_sem_seg_ids or area == 0 or area < stuff_area_threshold:
            continue
        panoptic_seg[region] = segment_id = len(segments_info) + 1
        segments_info.append(SegmentInfo(id=segment_id, isthing=False, category_id=label, area=area))
    return PanopticPrediction(panoptic_seg, segments_info)


def combine_detectron2(
    instances: Instances,
    sem_seg_logits: torch.Tensor,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    *,
    overlap_threshold: float = 0.5,
    stuff_area_threshold: int = 4096,
    instance_score_threshold: float = 0.5,
    sem_seg_stride: int = 4,
) -> PanopticPrediction:
    """What detectron2's `PanopticFPN` does after its semantic head's convolutions."""
    labels = upsample_plain(sem_seg_logits, sem_seg_stride, image_size, output_size).argmax(dim=0)
    combined = combine_semantic_and_instance_outputs(
        postprocess_plain(instances, output_size),
        labels,
        overlap_threshold,
        stuff_area_threshold,
        instance_score_threshold,
    )
    return PanopticPrediction(*combined)


def upsample_plain(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> torch.Tensor:
    """Logits at output size in two steps, as detectron2's semantic head and `sem_seg_postprocess`."""
    x = F.interpolate(logits[None].float(), scale_factor=float(stride), mode="bilinear", align_corners=False)[0]
    return sem_seg_postprocess(x, image_size, *output_size)


def postprocess_plain(instances: Instances, output_size: tuple[int, int], mask_threshold: float = 0.5) -> Instances:
    """detectron2's `detector_postprocess` on a copy, because it changes the boxes; always with bool masks."""
    fields = {**instances.get_fields(), "pred_boxes": instances.pred_boxes.clone()}
    result = detector_postprocess(Instances(instances.image_size, **fields), *output_size, mask_threshold)
    result.pred_masks = result.pred_masks.bool()
    return result


def paste_plain(masks: torch.Tensor, boxes: torch.Tensor, output_size: tuple[int, int]) -> torch.Tensor:
    """detectron2's masks at output size, bool (K, H, W)."""
    return paste_masks_in_image(masks, Boxes(boxes), output_size).bool()


def upsampled_cross_entropy_plain(logits, targets, scale_factor, ignore_value):
    """What `modeling.losses.upsampled_cross_entropy` must equal, with every tensor at full size."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    upsampled = F.interpolate(precise, scale_factor=scale_factor, mode="bilinear", align_corners=False)
    loss_sum = F.cross_entropy(upsampled, targets, reduction="sum", ignore_index=ignore_value)
    return loss_sum / (targets != ignore_value).sum().clamp(min=1)


def jaccard_loss_plain(logits, targets, scale_factor, ignore_value):
    """What `modeling.jaccard_loss.jaccard_loss` must equal: a class of an image at a time, a logit at a time."""
    (_, num_classes, height, width), s = logits.shape, scale_factor
    images = []
    for scores, labels in zip(logits.softmax(dim=1), targets, strict=True):
        losses = [logits.sum() * 0]
        for label in range(num_classes):
            p, t = [], []
            for y in range(height):
                for x in range(width):
                    block = labels[y * s : (y + 1) * s, x * s : (x + 1) * s]
                    p.append(scores[label, y, x] * (block != ignore_value).double().mean())
                    t.append((block == label).double().mean())
            if any(t):
                apart = sum((a - b).abs() for a, b in zip(p, t, strict=True))
                losses.append(1 - (sum(p) + sum(t) - apart) / (sum(p) + sum(t) + apart))
        images.append(sum(losses) / max(1, len(losses) - 1))
    return sum(images) / len(images)


def panoptic_targets_plain(rgb, segments_info, categories):
    """Targets of a transformed panoptic image, one full-size mask a segment."""
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


def deform_conv_plain(
    x: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> torch.Tensor:
    """Deformable convolution tap by tap: each is the map read at moved positions (`F.grid_sample`), times its weight.

    Shapes as in ``panoptic_fpn_ext.modeling.deform_conv``.
    """
    (_, channels, height, width), (out_channels, per_group, side, _) = x.shape, weight.shape
    h, w = offset.shape[-2:]
    y0, x0 = (torch.arange(n, dtype=x.dtype) * stride - padding for n in (h, w))
    of_group = channels // (offset.shape[1] // (2 * side * side))
    result = x.new_zeros(len(x), out_channels, h, w)
    for c in range(channels):
        for tap in range(side * side):
            k = c // of_group * side * side + tap
            y = y0[:, None] + tap // side * dilation + offset[:, 2 * k]
            xs = x0 + tap % side * dilation + offset[:, 2 * k + 1]
            grid = torch.stack([(2 * xs + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
            value = F.grid_sample(x[:, c : c + 1], grid, align_corners=False)[:, 0] * mask[:, k]
            group = c // per_group
            rows = slice(
                group * out_channels * per_group // channels, (group + 1) * out_channels * per_group // channels
            )
            result[:, rows] += value[:, None] * weight[rows, c % per_group, tap // side, tap % side, None, None]
    return result


def mean_field_plain(scores, image, spatial_weight=3.0, bilateral_weight=4.0, num_steps=3, thetas=(3.0, 49.0, 5.0)):
    """`DenseCRF.mean_field` with both kernels as matrices of all pairs of pixels, in float64."""
    height, width = scores.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position, color = torch.stack([y.flatten(), x.flatten()], dim=1).double(), image.flatten(1).t().double()
    gamma, alpha, beta = thetas
    apart, other = (((f[:, None] - f) ** 2).sum(dim=2) for f in (position, color))
    spatial = (-apart / (2 * gamma**2)).exp()
    bilateral = (-apart / (2 * alpha**2) - other / (2 * beta**2)).exp()
    start = x = scores.flatten(1).double()
    for _ in range(num_steps):
        q = x.softmax(dim=0)
        messages = [q @ (kernel / kernel.sum(dim=1, keepdim=True)).t() for kernel in (spatial, bilateral)]
        x = start + spatial_weight * messages[0] + bilateral_weight * messages[1]
    return x.view(scores.shape)
