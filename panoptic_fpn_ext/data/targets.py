"""From a panoptic map to what the network is trained on. Pure: arrays in, tensors out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import Instances

from ..categories import PanopticCategories
from ..index_masks import IndexMasks
from ..panoptic_map import MAX_UINT8_INDEX, segment_index_map
from ..structures import PanopticTargets
from .planes import in_row_order

__all__ = ["panoptic_targets", "sem_seg_target", "semantic_labels", "targets_of_indices"]

_MAX_BYTE = 255


def sem_seg_target(
    ids: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
    ignore_label: int | None = None,
) -> torch.Tensor:
    """Semantic target of a panoptic map.

    As panopticapi and detectron2 prepare it: crowd segments count as their category, void and any id that no segment
    has (the padding of a transform) are ignored.

    Args:
        ids: segment ids (H, W).
        segments_info: ``id``, ``category_id`` (contiguous for things, semantic for stuff) and ``isthing`` of each.
        categories: gives the semantic id space.
        ignore_label: what void becomes, no semantic id; None is ``categories.ignore_label``.

    Returns:
        int64 (H, W): semantic ids or the ignore label.
    """
    indices = segment_index_map(ids, [s["id"] for s in segments_info])
    return _sem_seg_of_indices(indices, segments_info, categories, ignore_label)


def panoptic_targets(
    ids: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
    ignore_label: int | None = None,
) -> PanopticTargets:
    """Both targets of a panoptic map; arguments as in :func:`sem_seg_target`.

    Instances are the thing segments that are no crowd (``iscrowd`` 0 or absent) and still have a pixel.
    """
    indices = segment_index_map(ids, [s["id"] for s in segments_info])
    return targets_of_indices(indices, segments_info, categories, ignore_label)


def targets_of_indices(
    index_map: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
    ignore_label: int | None = None,
) -> PanopticTargets:
    """As :func:`panoptic_targets`, from what :func:`~panoptic_fpn_ext.index_masks.segment_index_map` makes of the ids.

    Args:
        index_map: uint8 or int32 (H, W), k + 1 where the k-th segment is; any other number is void.
        segments_info, categories, ignore_label: as in :func:`sem_seg_target`.
    """
    countable = [(k, s) for k, s in enumerate(segments_info, start=1) if s["isthing"] and not s.get("iscrowd", 0)]
    indices = torch.tensor([k for k, _ in countable], dtype=torch.int64)
    classes = torch.tensor([s["category_id"] for _, s in countable], dtype=torch.int64)
    index_map = np.array(in_row_order(index_map))
    masks = IndexMasks(torch.from_numpy(index_map), indices)
    sem_seg = _sem_seg_of_indices(index_map, segments_info, categories, ignore_label)
    return PanopticTargets(sem_seg, _instances(masks, classes))


def _instances(masks: IndexMasks, classes: torch.Tensor) -> Instances:
    """Training instances; masks without a pixel are left out."""
    boxes = masks.get_bounding_boxes()
    nonempty = boxes.tensor[:, 2] > 0
    instances = Instances(tuple(masks.image_size))
    instances.gt_boxes = boxes[nonempty]
    instances.gt_classes = classes[nonempty]
    instances.gt_masks = masks[nonempty]
    return instances


def _sem_seg_of_indices(
    index_map: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
    ignore_label: int | None,
) -> torch.Tensor:
    return torch.from_numpy(semantic_labels(index_map, segments_info, categories, ignore_label).astype(np.int64))


def semantic_labels(
    index_map: npt.NDArray[np.integer],
    segments_info: Sequence[Mapping[str, Any]],
    categories: PanopticCategories,
    ignore_label: int | None = None,
) -> npt.NDArray[np.integer]:
    """As :func:`sem_seg_target`, in as few bytes as possible.

    Args:
        index_map, segments_info, categories, ignore_label: as in :func:`targets_of_indices`.

    Returns:
        (H, W), uint8 where they suffice, else int64; read-only: semantic ids or the ignore label.
    """
    ignored = categories.ignore_label if ignore_label is None else ignore_label
    values = [categories.semantic_id(categories.dataset_id(s["category_id"], s["isthing"])) for s in segments_info]
    fits_bytes = min([ignored, *values]) >= 0 and max([ignored, *values]) <= _MAX_BYTE
    if index_map.dtype == np.uint8 and len(values) <= MAX_UINT8_INDEX and fits_bytes:
        table = np.full(_MAX_BYTE + 1, ignored, np.uint8)
        table[1 : len(values) + 1] = values
        # bytes.translate is the fastest look-up there is for bytes.
        labels = np.frombuffer(index_map.tobytes().translate(table.tobytes()), np.uint8)
        return labels.reshape(index_map.shape)
    known = (index_map > 0) & (index_map <= len(values))
    return np.array([ignored, *values], np.uint8 if fits_bytes else np.int64)[np.where(known, index_map, 0)]
