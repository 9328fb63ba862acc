"""The paper's merging procedure (Panoptic FPN, section 3; Panoptic Segmentation, section 7).

Shapes: K detections, M mask side, C semantic classes, h, w logits, H, W output.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch.nn import functional as F

from ...structures import THINGS_SEM_SEG_ID, VOID_ID, PanopticPrediction
from ..postprocessing import (
    PlacedInstances,
    label_free_pixels,
    place_instances,
    row_strips,
)
from .build import PANOPTIC_COMBINER_REGISTRY
from .segments import candidate_rows, label_areas, stuff_segments, thing_segments

__all__ = ["HeuristicCombiner"]


@PANOPTIC_COMBINER_REGISTRY.register()
class HeuristicCombiner:
    """Instances first, in order of score, then stuff on what is free.

    An instance of which more than ``overlap_threshold`` is taken already is dropped, otherwise it gets its free
    pixels. The remaining pixels get their semantic label; thing labels and labels with too few free pixels become void.

    Nothing of size C×H×W or K×H×W is made: masks are pasted one by one within their boxes, and labels are found only
    where no instance stands. The device decides which instance gets a segment; a host waits for a GPU twice an image,
    however many there are.
    """

    takes_labels = True

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
        sem_seg_labels: torch.Tensor | None = None,
    ) -> PanopticPrediction:
        """Merge the raw outputs of one image. The arguments are not changed.

        Args:
            instances: K detections in network input pixels: ``pred_boxes`` (XYXY), ``scores``, ``pred_classes`` and
                ``pred_masks``, float (K, 1, M, M) probabilities inside the boxes.
            sem_seg_logits: float (C, h, w) at ``sem_seg_stride``, padding included.
            image_size: (height, width) of the network input without padding.
            output_size: (H, W) of the panoptic map.
            sem_seg_labels: of all pixels, integer (H, W), where they are known; see :func:`.label_pixels`.

        Returns:
            The panoptic map and its segments; ``instance_id`` counts the detections whose box is not empty at output
            size, as detectron2's post-processed ``instances`` do.
        """
        device = sem_seg_logits.device
        panoptic_seg = torch.full(output_size, VOID_ID, dtype=torch.int32, device=device)
        free = torch.ones(output_size, dtype=torch.bool, device=device)
        placed = place_instances(instances, output_size)  # Here the host waits for the device for the first time.
        candidates = candidate_rows(placed.placement.scores, self.instance_score_threshold)
        accepted = self._write_instances(panoptic_seg, free, placed, candidates)
        if sem_seg_labels is None:
            labels = label_free_pixels(sem_seg_logits, self.sem_seg_stride, image_size, free)
        else:
            labels = sem_seg_labels.masked_fill(~free, len(sem_seg_logits))
        areas = label_areas(labels, len(sem_seg_logits))
        ids = self._stuff_ids(areas, accepted.sum())
        _write_stuff(panoptic_seg, labels, ids)
        # Here for the second and last time.
        numbers = torch.cat([accepted, areas, ids]).tolist()
        is_accepted, stuff = numbers[: len(candidates)], numbers[len(candidates) :]
        things = list(itertools.compress(candidates, is_accepted))
        segments = [
            *thing_segments(placed.placement, things),
            *stuff_segments(stuff[: len(areas)], stuff[len(areas) :]),
        ]
        return PanopticPrediction(panoptic_seg, segments)

    def _write_instances(
        self, panoptic_seg: torch.Tensor, free: torch.Tensor, placed: PlacedInstances, candidates: Sequence[int]
    ) -> torch.Tensor:
        """Write candidates into the (void) map and take their pixels off ``free``.

        Returns:
            int32, for each candidate 1 if it got a segment, and 0 otherwise. The device decides, and the host does not
            wait for it.
        """
        next_id = torch.ones((), dtype=torch.int32, device=free.device)
        accepted = torch.zeros(len(candidates), dtype=torch.int32, device=free.device)
        masks = placed.paste_each(candidates, self.mask_threshold)
        for k, mask, is_accepted in zip(candidates, masks, accepted, strict=True):
            window = placed.placement.windows[k]
            is_accepted.copy_(self._write_instance(panoptic_seg[window], free[window], mask, next_id))
            next_id += is_accepted
        return accepted

    def _write_instance(
        self, segments: torch.Tensor, free: torch.Tensor, mask: torch.Tensor, next_id: torch.Tensor
    ) -> torch.Tensor:
        """One instance into its window of the map and of ``free``, if it gets a segment; bool (), whether it does."""
        area = mask.count_nonzero()
        mask &= free  # it has only free pixels from here on
        free_area = mask.count_nonzero()
        # An instance that lies wholly on others has no pixel left, whatever the threshold allows.
        has_segment = (free_area > 0) & ((area - free_area).double() / area <= self.overlap_threshold)
        if free.device.type != "cpu":
            # Free pixels are 0 in the map, and a number of 0 leaves them so. To fill in a tensor, the host would wait.
            segments.add_(mask * (next_id * has_segment))
            torch.eq(segments, VOID_ID, out=free)
        elif has_segment:
            segments.masked_fill_(mask, next_id)
            free ^= mask
        return has_segment

    def _stuff_ids(self, areas: torch.Tensor, num_things: torch.Tensor) -> torch.Tensor:
        """Segment id of each label after those of the things, or 0; int64 (C,), as the areas are."""
        is_segment = (areas > 0) & (areas.double() >= self.stuff_area_threshold)
        for label in self.thing_sem_seg_ids:
            is_segment[max(label, 0) : max(label + 1, 0)].fill_(0)  # a number alone would be an upload
        return (is_segment.cumsum(0) + num_things) * is_segment


def _write_stuff(panoptic_seg: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> None:
    """Write ids int64 (C,) of labels into the free pixels of the map; the others have label C."""
    id_of_label = F.pad(ids, (0, 1)).int()
    for strip in row_strips(*labels.shape):
        # int32 indices are half the memory of int64, and all versions of PyTorch take them here.
        panoptic_seg[strip] += id_of_label.index_select(0, labels[strip].flatten().int()).view_as(labels[strip])
