"""Masks that do not overlap, kept as one map: what the instances of a panoptic map need until they are cut out.

Shapes: K masks, R boxes, M mask size, H, W image.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.layers.roi_align import ROIAlign
from detectron2.structures import BitMasks, Boxes

__all__ = ["IndexMasks", "index_boxes"]

_PIXELS_AT_ONCE = 2**23  # of float masks in `crop_and_resize`


def index_boxes(index_map: npt.NDArray[np.integer], highest: int) -> npt.NDArray[np.float32]:
    """Tight boxes of the areas of equal index, from the runs of each row.

    Args:
        index_map: non-negative integers (H, W).
        highest: the largest index to look at.

    Returns:
        float32 (highest + 1, 4), XYXY in px with exclusive far edges; zeros for an index without a pixel.
    """
    height, width = index_map.shape
    if not index_map.size:
        return np.zeros((highest + 1, 4), np.float32)
    begins = np.ones(index_map.size, dtype=bool)
    flat = index_map.reshape(-1)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    first = np.flatnonzero(begins)
    index, x0, y = flat[first].astype(np.int64), first % width, first // width
    x1 = np.append(first[1:], index_map.size) - y * width
    kept = index <= highest
    near = np.tile(np.array([width, height]), (highest + 1, 1))
    far = np.zeros((highest + 1, 2), np.int64)
    np.minimum.at(near, index[kept], np.stack([x0, y], axis=1)[kept])
    np.maximum.at(far, index[kept], np.stack([x1, y + 1], axis=1)[kept])
    return np.concatenate([np.where(far > 0, near, 0), far], axis=1).astype(np.float32)


class IndexMasks(BitMasks):
    """`BitMasks` of one image whose masks do not overlap, in H·W bytes instead of K·H·W.

    Mask k holds the pixels where ``index_map`` is ``indices[k]``; indexing selects rows of ``indices`` and shares the
    map. Results equal those of `BitMasks` bit for bit. ``tensor`` gives the bool (K, H, W) masks to code that wants
    them, made anew each time.
    """

    def __init__(self, index_map: torch.Tensor, indices: torch.Tensor) -> None:
        """
        Args:
            index_map: uint8 or int32 (H, W).
            indices: int64 (K,), on the same device; they may repeat.
        """
        assert index_map.dim() == 2 and indices.dim() == 1, (index_map.shape, indices.shape)
        self.index_map = index_map
        self.indices = indices
        self.image_size = index_map.shape

    @property
    def tensor(self) -> torch.Tensor:
        """bool (K, H, W)."""
        return self._masks(self.indices)

    def _masks(self, indices: torch.Tensor) -> torch.Tensor:
        return self.index_map[None] == indices.to(self.index_map.dtype)[:, None, None]

    @property
    def device(self) -> torch.device:
        """Where the map is."""
        return self.index_map.device

    def to(self, *args: Any, **kwargs: Any) -> "IndexMasks":
        """A copy on another device; arguments as those of ``Tensor.to`` without a dtype."""
        return IndexMasks(self.index_map.to(*args, **kwargs), self.indices.to(*args, **kwargs))

    def __getitem__(self, item: Any) -> "IndexMasks":
        if isinstance(item, int):
            item = [item]
        return IndexMasks(self.index_map, self.indices[item])

    def __iter__(self) -> Any:
        return (self._masks(index[None])[0] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def nonempty(self) -> torch.Tensor:
        """bool (K,): whether a mask has a pixel."""
        return torch.isin(self.indices, self.index_map.unique())

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """As `BitMasks.crop_and_resize`, but boxes of the same mask share its float map, and only a few maps live at a
        time.

        Args:
            boxes: float (K, 4), XYXY in px, one for each mask.
            mask_size: M.

        Returns:
            bool (K, M, M).
        """
        assert len(boxes) == len(self), f"{len(boxes)} != {len(self)}"
        boxes = boxes.to(self.device)
        pool = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        result = torch.zeros(len(self), mask_size, mask_size, dtype=torch.bool, device=self.device)
        at_once = max(1, _PIXELS_AT_ONCE // max(self.index_map.numel(), 1))
        for indices, rows, which in self._groups(at_once):
            rois = torch.cat([which.to(boxes.dtype)[:, None], boxes[rows]], dim=1)
            result[rows] = pool(self._masks(indices)[:, None].float(), rois).squeeze(1) >= 0.5
        return result

    def _groups(self, at_once: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | slice, torch.Tensor]]:
        """All masks, as many different ones at a time.

        Yields:
            Indices of at most ``at_once`` masks, the rows of these, and for each row the position of its mask among
            the indices.
        """
        if self.device.type != "cpu":  # a host that asks which are different waits, and drawing some twice costs little
            for start in range(0, len(self), at_once):
                rows = slice(start, min(start + at_once, len(self)))
                yield self.indices[rows], rows, torch.arange(rows.stop - start, device=self.device)
            return
        different, which = self.indices.unique(return_inverse=True)
        for start in range(0, len(different), at_once):
            chosen = torch.where((which >= start) & (which < start + at_once))[0]
            yield different[start : start + at_once], chosen, which[chosen] - start

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes, float32 XYXY in px with exclusive far edges; zeros for a mask without a pixel."""
        indices = self.indices.tolist()
        boxes = index_boxes(self.index_map.cpu().numpy(), max(indices, default=0))
        return Boxes(torch.from_numpy(boxes)[indices])

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Masks of the same map stay compact; others become `BitMasks`."""
        first = bitmasks_list[0]
        same = [
            m
            for m in bitmasks_list
            if isinstance(m, IndexMasks) and isinstance(first, IndexMasks) and m.index_map is first.index_map
        ]
        if len(same) < len(bitmasks_list):
            return BitMasks(torch.cat([m.tensor for m in bitmasks_list]))
        return IndexMasks(same[0].index_map, torch.cat([m.indices for m in same]))
