"""The paper's merging procedure (Panoptic FPN, section 3; Panoptic Segmentation, section 7).

Shapes: K detections, M mask side, C semantic classes, h, w logits, H, W output.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances

from ...structures import THINGS_SEM_SEG_ID, VOID_ID, PanopticPrediction, SegmentInfo
from ..postprocessing import boxes_at_output_size, label_free_pixels, paste_mask, paste_windows, row_strips
from .build import PANOPTIC_COMBINER_REGISTRY

__all__ = ["HeuristicCombiner"]


@PANOPTIC_COMBINER_REGISTRY.register()
class HeuristicCombiner:
    """Instances first, in order of score, then stuff on what is free.

    An instance of which more than ``overlap_threshold`` is taken already is dropped, otherwise it gets its free
    pixels. The remaining pixels get their semantic label; thing labels and labels with too few free pixels become void.

    Nothing of size C×H×W or K×H×W is made: masks are pasted one by one within their boxes, and labels are found only
    where no instance stands.
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

    @torch.no_grad()
    def __call__(
        self,
        instances: Instances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> PanopticPrediction:
        """Merge the raw outputs of one image. The arguments are not changed.

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
        panoptic_seg = torch.full(output_size, VOID_ID, dtype=torch.int32, device=sem_seg_logits.device)
        free = torch.ones(output_size, dtype=torch.bool, device=sem_seg_logits.device)
        segments_info = self._add_instances(panoptic_seg, free, instances, output_size)
        labels = label_free_pixels(sem_seg_logits, self.sem_seg_stride, image_size, free)
        segments_info += self._add_stuff(panoptic_seg, labels, len(sem_seg_logits), first_id=len(segments_info) + 1)
        return PanopticPrediction(panoptic_seg, segments_info)

    def _add_instances(
        self, panoptic_seg: torch.Tensor, free: torch.Tensor, instances: Instances, output_size: tuple[int, int]
    ) -> list[SegmentInfo]:
        """Write the instances into the (void) map, take their pixels off ``free``, and list them."""
        boxes = boxes_at_output_size(instances, output_size)
        nonempty = boxes.nonempty()
        scores, classes = instances.scores[nonempty], instances.pred_classes[nonempty].tolist()
        order, values = torch.argsort(-scores).tolist(), scores.tolist()
        # As Python numbers: a float32 tensor would round the threshold.
        candidates = [row for row in order if values[row] >= self.instance_score_threshold]
        masks, boxes = instances.pred_masks[nonempty][candidates, 0], boxes.tensor[nonempty][candidates]
        accepted = self._write_instances(panoptic_seg, free, masks, boxes)
        return [
            SegmentInfo(id=i, isthing=True, score=values[row], category_id=classes[row], instance_id=row)
            for i, row in enumerate(itertools.compress(candidates, accepted), start=1)
        ]

    def _write_instances(
        self, panoptic_seg: torch.Tensor, free: torch.Tensor, masks: torch.Tensor, boxes: torch.Tensor
    ) -> list[bool]:
        """Which instances, in this order, get a segment. The device decides; the host hears of it once, at the end."""
        next_id = torch.ones((), dtype=torch.int32, device=free.device)
        accepted = torch.zeros(len(masks), dtype=torch.bool, device=free.device)
        windows = paste_windows(boxes, (free.shape[0], free.shape[1]))
        for mask, box, window, is_accepted in zip(masks, boxes, windows, accepted, strict=True):
            claimed = self._claim(paste_mask(mask, box, window, self.mask_threshold), free[window], is_accepted)
            panoptic_seg[window].masked_fill_(claimed, next_id)
            next_id += is_accepted
        return accepted.tolist()

    def _claim(self, mask: torch.Tensor, free: torch.Tensor, is_accepted: torch.Tensor) -> torch.Tensor:
        """Pixels an instance gets, none if it is dropped; they are free no more. Fills in ``is_accepted``, bool ()."""
        area = mask.count_nonzero()
        mask &= free
        free_area = mask.count_nonzero()
        # An instance that lies wholly on others has no pixel left, whatever the threshold allows.
        is_accepted.copy_((free_area > 0) & ((area - free_area).double() / area <= self.overlap_threshold))
        mask &= is_accepted
        free ^= mask
        return mask

    def _add_stuff(
        self, panoptic_seg: torch.Tensor, labels: torch.Tensor, num_classes: int, first_id: int
    ) -> list[SegmentInfo]:
        """Write the stuff labels, which are below ``num_classes``, into the free pixels of the map and list them."""
        areas = torch.bincount(labels.flatten(), minlength=num_classes).tolist()[:num_classes]
        kept = [label for label, area in enumerate(areas) if self._is_segment(label, area)]
        id_of_label = torch.zeros(num_classes + 1, dtype=torch.int32)
        id_of_label[kept] = torch.arange(first_id, first_id + len(kept), dtype=torch.int32)
        id_of_label = id_of_label.to(labels.device)
        for strip in row_strips(*labels.shape):
            # int32 indices are half the memory of int64, and all versions of PyTorch take them here.
            panoptic_seg[strip] += id_of_label.index_select(0, labels[strip].flatten().int()).view_as(labels[strip])
        return [
            SegmentInfo(id=i, isthing=False, category_id=label, area=areas[label])
            for i, label in enumerate(kept, start=first_id)
        ]

    def _is_segment(self, label: int, area: int) -> bool:
        return label not in self.thing_sem_seg_ids and area > 0 and area >= self.stuff_area_threshold
