"""The paper's merging procedure (Panoptic FPN, section 3; Panoptic Segmentation, section 7).

Shapes: K detections, M mask side, C semantic classes, h, w logits, H, W output.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from ...structures import THINGS_SEM_SEG_ID, VOID_ID, PanopticPrediction, SegmentInfo
from .build import PANOPTIC_COMBINER_REGISTRY

__all__ = ["HeuristicCombiner", "upsample_sem_seg_logits"]


@PANOPTIC_COMBINER_REGISTRY.register()
class HeuristicCombiner:
    """Instances first, in order of score, then stuff on what is free.

    An instance of which more than ``overlap_threshold`` is taken already is dropped, otherwise it gets its free
    pixels. The remaining pixels get their semantic label; thing labels and labels with too few free pixels become void.
    """

    @configurable
    def __init__(
        self,
        *,
        overlap_threshold: float = 0.5,
        stuff_area_threshold: int = 4096,
        instance_score_threshold: float = 0.5,
        thing_sem_seg_ids: Sequence[int] = (THINGS_SEM_SEG_ID,),
        sem_seg_stride: int = 4,
        mask_threshold: float = 0.5,
    ) -> None:
        """
        Args:
            overlap_threshold: largest fraction of an instance's pixels that may be taken already.
            stuff_area_threshold: stuff with fewer free pixels, at output size, becomes void.
            instance_score_threshold: instances with lower scores are left out.
            thing_sem_seg_ids: semantic ids that stand for things: their pixels become void.
            sem_seg_stride: network input pixels per logit.
            mask_threshold: probability from which a pixel belongs to an instance.
        """
        self.overlap_threshold = overlap_threshold
        self.stuff_area_threshold = stuff_area_threshold
        self.instance_score_threshold = instance_score_threshold
        self.thing_sem_seg_ids = frozenset(thing_sem_seg_ids)
        self.sem_seg_stride = sem_seg_stride
        self.mask_threshold = mask_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``cfg.MODEL.PANOPTIC_FPN.COMBINE``; detectron2's keys keep their meaning."""
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        return {
            "overlap_threshold": combine.OVERLAP_THRESH,
            "stuff_area_threshold": combine.STUFF_AREA_LIMIT,
            "instance_score_threshold": combine.INSTANCES_CONFIDENCE_THRESH,
            "thing_sem_seg_ids": combine.get("THING_SEM_SEG_IDS", (THINGS_SEM_SEG_ID,)),
            "sem_seg_stride": cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE,
        }

    def __call__(
        self,
        instances: Instances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> PanopticPrediction:
        """Merge the raw outputs of one picture. The arguments are not changed.

        Args:
            instances: K detections in network input pixels: ``pred_boxes`` (XYXY), ``scores``, ``pred_classes`` and
                ``pred_masks``, float (K, 1, M, M) probabilities inside the boxes.
            sem_seg_logits: float (C, h, w) at ``sem_seg_stride``, padding included.
            image_size: (height, width) of the network input without padding.
            output_size: (H, W) of the panoptic map.

        Returns:
            The panoptic map and its segments; ``instance_id`` counts the detections whose box is not empty at output
            size, as detectron2's post-processed ``instances`` do.
        """
        labels = upsample_sem_seg_logits(sem_seg_logits, self.sem_seg_stride, image_size, output_size).argmax(dim=0)
        panoptic_seg = torch.full(output_size, VOID_ID, dtype=torch.int32, device=labels.device)
        segments_info = self._add_instances(panoptic_seg, instances, output_size)
        segments_info += self._add_stuff(panoptic_seg, labels, first_id=len(segments_info) + 1)
        return PanopticPrediction(panoptic_seg, segments_info)

    def _add_instances(
        self, panoptic_seg: torch.Tensor, instances: Instances, output_size: tuple[int, int]
    ) -> list[SegmentInfo]:
        """Write the instances into the (void) map and list them."""
        boxes = _boxes_at_output_size(instances, output_size)
        nonempty = boxes.nonempty()
        scores = instances.scores[nonempty]
        order = torch.argsort(-scores)
        order = order[scores[order] >= self.instance_score_threshold]
        masks = paste_masks_in_image(
            instances.pred_masks[nonempty][order][:, 0], boxes[nonempty][order], output_size, self.mask_threshold
        )
        classes = instances.pred_classes[nonempty].tolist()
        segments_info: list[SegmentInfo] = []
        for index, mask in zip(order.tolist(), masks, strict=True):
            free = mask & (panoptic_seg == VOID_ID)
            area, free_area = int(mask.sum()), int(free.sum())
            # An instance that lies wholly on others has no pixel left, whatever the threshold allows.
            if free_area == 0 or (area - free_area) / area > self.overlap_threshold:
                continue
            segment_id = len(segments_info) + 1
            panoptic_seg[free] = segment_id
            segments_info.append(
                SegmentInfo(
                    id=segment_id,
                    isthing=True,
                    score=float(scores[index]),
                    category_id=classes[index],
                    instance_id=index,
                )
            )
        return segments_info

    def _add_stuff(self, panoptic_seg: torch.Tensor, labels: torch.Tensor, first_id: int) -> list[SegmentInfo]:
        """Write the stuff labels into the free pixels of the map and list them."""
        segments_info: list[SegmentInfo] = []
        free = panoptic_seg == VOID_ID
        areas = torch.bincount(labels[free]).tolist()
        for label, area in enumerate(areas):
            if label in self.thing_sem_seg_ids or area == 0 or area < self.stuff_area_threshold:
                continue
            segment_id = first_id + len(segments_info)
            panoptic_seg[free & (labels == label)] = segment_id
            segments_info.append(SegmentInfo(id=segment_id, isthing=False, category_id=label, area=area))
        return segments_info


def upsample_sem_seg_logits(
    logits: torch.Tensor, stride: int, image_size: tuple[int, int], output_size: tuple[int, int]
) -> torch.Tensor:
    """Logits at output size: up to the network input, padding off, then to the output, bilinear both times.

    Args:
        logits: float (C, h, w), padding included.
        stride: network input pixels per logit.
        image_size: (height, width) of the network input without padding.
        output_size: (H, W).

    Returns:
        float (C, H, W).
    """
    x = logits[None].float()
    if stride != 1:
        x = F.interpolate(x, scale_factor=float(stride), mode="bilinear", align_corners=False)
    x = x[..., : image_size[0], : image_size[1]]
    return F.interpolate(x, size=output_size, mode="bilinear", align_corners=False)[0]


def _boxes_at_output_size(instances: Instances, output_size: tuple[int, int]) -> Boxes:
    """Copies of the predicted boxes, scaled and clipped to the output."""
    boxes = instances.pred_boxes.clone()
    boxes.scale(output_size[1] / instances.image_size[1], output_size[0] / instances.image_size[0])
    boxes.clip(output_size)
    return boxes
