"""From the ids of a model's output to those of the dataset, on a copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..categories import PanopticCategories
from .segments import unique_ids

__all__ = ["ModelIds", "unlisted_categories"]

VOID_LABEL = -1


def unlisted_categories(metadata: Any) -> list[dict[str, Any]]:
    """Categories of the model that the dataset's JSON does not list, as COCO lists them.

    Args:
        metadata: have ``registered_categories``, those of the JSON, where the dataset took over a model's.
    """
    listed = getattr(metadata, "registered_categories", None)
    if listed is None:
        return []
    return [row for row in PanopticCategories.from_metadata(metadata).rows if row["id"] not in listed.dataset_ids]


class ModelIds:
    """The inverse of the id maps in a dataset's metadata, whatever registered it.

    detectron2's own sets do not all keep to one layout (the things of its Cityscapes have ids 11 … 18), so this reads
    their maps as its evaluator does instead of demanding a layout.
    """

    def __init__(self, metadata: Any) -> None:
        """``metadata``: ``thing_/stuff_dataset_id_to_contiguous_id``; ``label_divisor`` for maps without segments."""
        things: Mapping[int, int] = getattr(metadata, "thing_dataset_id_to_contiguous_id", {})
        stuff: Mapping[int, int] = getattr(metadata, "stuff_dataset_id_to_contiguous_id", {})
        self._dataset_ids = {(index, True): id_ for id_, index in things.items()}
        self._dataset_ids |= {(index, False): id_ for id_, index in stuff.items()}
        self._label_divisor: int | None = getattr(metadata, "label_divisor", None)

    def to_dataset(
        self, panoptic_seg: npt.NDArray[np.integer], segments_info: Sequence[Mapping[str, Any]] | None
    ) -> tuple[npt.NDArray[np.integer], list[dict[str, Any]], list[str]]:
        """Segment ids (H, W), their ``{"id", "category_id"}`` with dataset ids (``score``), and why some were left out.

        Args:
            panoptic_seg: integers (H, W), segment ids, or panoptic labels where ``segments_info`` is None.
            segments_info: ``id``, ``category_id``, and ``isthing`` unless ``category_id`` is a dataset id already.

        Raises:
            ValueError: labels without segments, and the metadata have no ``label_divisor``.
        """
        if segments_info is None:
            segments_info = self._segments_of_labels(panoptic_seg)
            panoptic_seg = panoptic_seg + 1  # -1 becomes 0, void
        segments, problems = [], []
        for info in segments_info:
            category_id, isthing = int(info["category_id"]), info.get("isthing")
            if isthing is not None:
                key = (category_id, bool(isthing))
                if key not in self._dataset_ids:
                    kind = f"{'thing' if isthing else 'stuff'} with category_id {category_id}"
                    problems.append(f"segment {info['id']} has an unknown category: {kind}")
                    continue
                category_id = self._dataset_ids[key]
            score = {"score": float(info["score"])} if info.get("score") is not None else {}
            segments.append({"id": int(info["id"]), "category_id": category_id, **score})
        return panoptic_seg, segments, problems

    def _segments_of_labels(self, labels: npt.NDArray[np.integer]) -> list[dict[str, Any]]:
        if self._label_divisor is None:
            raise ValueError(
                "segments_info is None, which means category_id * label_divisor + instance in each pixel, and the data "
                "set's metadata have no label_divisor; set it, or let the model return segments_info"
            )
        segments = []
        for label in unique_ids(labels):
            if label != VOID_LABEL:
                category_id = label // self._label_divisor
                isthing = (category_id, True) in self._dataset_ids
                segments.append({"id": label + 1, "category_id": category_id, "isthing": isthing})
        return segments
