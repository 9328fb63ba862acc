"""Things of one training image pasted into another.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021.

Shapes: H, W and h, w of the two images.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..index_masks import IndexMasks
from .targets import instances_of_masks

__all__ = ["CopyPaste", "paste_things"]

_SHARE = 0.5  # of the things of the other image


class CopyPaste:
    """A mapper that now and then pastes into what another mapper gives about half of the things of a second image.

    Both images go through the other mapper, so that what is pasted has a scale, a crop and colours of its own. All
    draws are from the global generators of ``random`` and PyTorch.
    """

    def __init__(
        self,
        mapper: Callable[[dict[str, Any]], dict[str, Any] | None],
        dataset: Sequence[dict[str, Any]],
        probability: float,
    ) -> None:
        """
        Args:
            mapper: gives ``image``, ``sem_seg`` and ``instances`` with
                :class:`~panoptic_fpn_ext.index_masks.IndexMasks`, as
                :class:`~panoptic_fpn_ext.data.PanopticDatasetMapper` makes them of panoptic maps.
            dataset: dicts of the images to paste from, which the mapper may change: each access gives a new one.
            probability: how often something is pasted.
        """
        self._mapper = mapper
        self._dataset = dataset
        self._probability = probability

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """As the other mapper's.

        Raises:
            ValueError: the instances are none of a panoptic map.
        """
        mapped = self._mapper(dataset_dict)
        if mapped is None or random.random() >= self._probability:
            return mapped
        try:
            other = self._mapper(self._dataset[random.randrange(len(self._dataset))])
        except OSError:  # which is said when it is that image's own turn
            return mapped
        if other is None:
            return mapped
        for one in (mapped, other):
            if not isinstance(getattr(one.get("instances"), "gt_masks", None), IndexMasks):
                raise ValueError(
                    "INPUT.COPY_PASTE_PROB (in a LazyConfig dataloader.train.copy_paste_prob) pastes things of "
                    f"panoptic maps, and the instances of {one.get('file_name')} are from elsewhere. Set it to 0, or "
                    "register the dataset without instance annotations."
                )
        return paste_things(mapped, other, torch.rand(len(other["instances"])) < _SHARE)


def paste_things(mapped: Mapping[str, Any], other: Mapping[str, Any], chosen: torch.Tensor) -> dict[str, Any]:
    """A training input with some of the things of another one in front of its own; neither is changed.

    The top left corners of both coincide; what goes beyond the first image is cut off. Of the first image's things,
    what is covered is gone, and so are those that nothing is left of.

    Args:
        mapped: ``image`` (uint8 (3, H, W)), ``sem_seg`` (int64 (H, W)), ``instances`` with
            :class:`~panoptic_fpn_ext.index_masks.IndexMasks`, and whatever else, which stays.
        other: the same with (h, w).
        chosen: bool, of the other's instances, those to paste.
    """
    into, source = mapped["instances"], other["instances"][chosen]
    below, above = into.gt_masks.index_map, source.gt_masks.index_map
    part = slice(min(below.shape[0], above.shape[0])), slice(min(below.shape[1], above.shape[1]))
    pasted = torch.isin(above[part].long(), source.gt_masks.indices)
    first = int(below.max()) + 1 if below.numel() else 1  # index of the first pasted segment, as int32 holds it
    index_map = below.int()
    result = {**mapped, "image": mapped["image"].clone(), "sem_seg": mapped["sem_seg"].clone()}
    index_map[part] = torch.where(pasted, above[part].int() + first, index_map[part])
    for key in ("image", "sem_seg"):
        result[key][..., part[0], part[1]] = torch.where(
            pasted, other[key][..., part[0], part[1]], result[key][..., part[0], part[1]]
        )
    indices = torch.cat([into.gt_masks.indices, source.gt_masks.indices + first])
    classes = torch.cat([into.gt_classes, source.gt_classes])
    result["instances"] = instances_of_masks(IndexMasks(index_map, indices), classes)
    return result
