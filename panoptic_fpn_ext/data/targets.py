"""From a panoptic map to what the network is trained on. Pure: arrays in, tensors out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from ..categories import PanopticCategories
from ..relabel import relabel
from ..structures import IGNORE_LABEL, VOID_ID, PanopticTargets

__all__ = ["check_panoptic_map", "instances_from_masks", "panoptic_targets", "sem_seg_target"]


def check_panoptic_map(
    ids: npt.NDArray[np.integer], segments_info: Sequence[Mapping[str, Any]], file_name: str
) -> None:
    """Refuse a panoptic map that does not agree with its list of segments.

    Args:
        ids: segment ids (H, W) as stored, before any transform.
        segments_info: the annotation's segments (``id`` is read).
        file_name: named in the message.

    Raises:
        ValueError: an id in the map is not listed, a listed one has no pixel, or one is listed twice.
    """
    listed = [int(s["id"]) for s in segments_info]
    present = set(np.unique(ids).tolist()) - {VOID_ID}
    problems = {
        "ids in the PNG that the JSON does not list": sorted(present - set(listed)),
        "listed segments without a pixel": sorted(set(listed) - present),
        "ids listed more than once": sorted({i for i in listed if listed.count(i) > 1}),
    }
    found = "; ".join(f"{what}: {bad[:10]} ({len(bad)} in all)" for what, bad in problems.items() if bad)
    if found:
        raise ValueError(
            f"Panoptic map {file_name} does not agree with its annotation: {found}. Mend the JSON or the PNG."
        )


def sem_seg_target(
    ids: npt.NDArray[np.integer], segments_info: Sequence[Mapping[str, Any]], categories: PanopticCategories
) -> torch.Tensor:
    """Semantic target of a panoptic map.

    As panopticapi and detectron2 prepare it: crowd segments count as their category, void and any id that no segment
    has (the padding of a transform) are ignored.

    Args:
        ids: segment ids (H, W).
        segments_info: ``id``, ``category_id`` (contiguous for things, semantic for stuff) and ``isthing`` of each.
        categories: gives the semantic id space.

    Returns:
        int64 (H, W): semantic ids or ``IGNORE_LABEL``.
    """
    values = [categories.semantic_id(categories.dataset_id(s["category_id"], s["isthing"])) for s in segments_info]
    return torch.from_numpy(relabel(ids, [s["id"] for s in segments_info], values, IGNORE_LABEL))


def instances_from_masks(masks: torch.Tensor, classes: torch.Tensor) -> Instances:
    """Training instances of binary masks; those without a pixel are left out.

    Args:
        masks: bool (K, H, W).
        classes: int64 (K,), contiguous thing ids.

    Returns:
        `Instances` with ``gt_masks`` (`BitMasks`), ``gt_classes`` and tight ``gt_boxes`` (XYXY in px, the far edges
        exclusive).
    """
    nonempty = masks.flatten(1).any(dim=1)
    masks, classes = masks[nonempty], classes[nonempty]
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.gt_boxes = Boxes(_tight_boxes(masks))
    instances.gt_classes = classes
    instances.gt_masks = BitMasks(masks)
    return instances


def panoptic_targets(
    ids: npt.NDArray[np.integer], segments_info: Sequence[Mapping[str, Any]], categories: PanopticCategories
) -> PanopticTargets:
    """Both targets of a panoptic map; arguments as in :func:`sem_seg_target`.

    Instances are the thing segments that are no crowd (``iscrowd`` 0 or absent) and still have a pixel.
    """
    countable = [s for s in segments_info if s["isthing"] and not s.get("iscrowd", 0)]
    index = torch.from_numpy(relabel(ids, [s["id"] for s in countable], range(len(countable)), -1))
    masks = index[None] == torch.arange(len(countable))[:, None, None]  # K, H, W
    classes = torch.tensor([s["category_id"] for s in countable], dtype=torch.int64)
    return PanopticTargets(sem_seg_target(ids, segments_info, categories), instances_from_masks(masks, classes))


def _tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """float32 (K, 4), XYXY, of non-empty masks: bool (K, H, W)."""
    edges = []
    for axis in (1, 2):  # over the rows: extent in x; over the columns: extent in y
        occupied = masks.any(dim=axis).int()
        first = occupied.argmax(dim=1)
        last = occupied.shape[1] - occupied.flip(1).argmax(dim=1)
        edges.append((first, last))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], dim=1).float()
