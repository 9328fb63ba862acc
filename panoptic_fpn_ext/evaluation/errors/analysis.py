"""What an evaluation explains: the segments of every image with cause and cost, the totals, and their JSON."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...categories import PanopticCategories
from ..panoptic_quality import PQCounts
from .causes import CAUSES, COLUMNS
from .confusion import count_segments
from .costs import GROUPS, Losses, segment_losses
from .image import SEGMENT_DTYPE

__all__ = ["ImageErrors", "PanopticErrors", "SegmentErrors"]


@dataclass(frozen=True)
class SegmentErrors:
    """One segment of the ground truth or of the prediction.

    Attributes:
        id: in its map.
        predicted: whether it is the prediction's.
        category_id: dataset id.
        isthing, iscrowd: of its category, of itself.
        area: px in the map.
        bbox: [x, y, width, height] in px.
        cause: one of ``CAUSES``.
        other: id, in the other map, of its match or of the segment that shows the cause; None where there is none.
        iou: with ``other``, as PQ counts it.
        cost: in points of PQ; what a match loses stands at the ground truth's segment.
        boundary_cost: of a match, the part of ``cost`` that is lost near edges of the ground truth.
        score: None where the prediction gives none.
    """

    id: int
    predicted: bool
    category_id: int
    isthing: bool
    iscrowd: bool
    area: int
    bbox: tuple[int, int, int, int]
    cause: str
    other: int | None
    iou: float | None
    cost: float
    boundary_cost: float
    score: float | None


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """One image: what it is called, and its segments as a table, ``SEGMENT_DTYPE`` (N,).

    ``gt_file_name``, ``pred_file_name``: of the PNGs, as the JSONs have them; None where there is none.
    """

    image_id: Hashable
    height: int
    width: int
    rows: npt.NDArray[np.void]
    gt_file_name: str | None = None
    pred_file_name: str | None = None


@dataclass(frozen=True, eq=False)
class PanopticErrors:
    """All images of an evaluation, in the order of the ground truth's JSON, and their counts for PQ.

    ``pixel_confusion``: see ``count_pixels``, int64 (C + 1, C + 1). ``notes``: what is odd about the files, a sentence
    each.
    """

    categories: PanopticCategories
    images: tuple[ImageErrors, ...]
    counts: PQCounts
    pixel_confusion: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @cached_property
    def losses(self) -> Losses:
        """Losses of all images by class and cause; ``losses.costs(group)`` are points of PQ."""
        return Losses.of(self.categories, self.rows)

    @cached_property
    def rows(self) -> npt.NDArray[np.void]:
        """The segments of all images, one after the other."""
        return np.concatenate([np.empty(0, SEGMENT_DTYPE), *(image.rows for image in self.images)])

    @property
    def image_of_row(self) -> npt.NDArray[np.int64]:
        """Index in ``images`` of each of :attr:`rows`."""
        return np.repeat(np.arange(len(self.images)), [len(image.rows) for image in self.images])

    def segment_confusion(self) -> npt.NDArray[np.int64]:
        """See ``count_segments``, int64 (C + 1, C + 1)."""
        return count_segments(self.rows, self.image_of_row, len(self.categories))

    def segments(self, image: ImageErrors) -> Iterator[SegmentErrors]:
        """The segments of an image, the ground truth's first."""
        ids, rows = self.categories.dataset_ids, image.rows
        parts = segment_losses(rows) * self._price[rows["category"]][:, None]
        for row, (first, second) in zip(rows, parts.tolist(), strict=True):
            matched, known = CAUSES[row["cause"]] == "matched", bool(row["union"])
            yield SegmentErrors(
                id=int(row["id"]),
                predicted=bool(row["predicted"]),
                category_id=ids[row["category"]],
                isthing=self.categories.isthing(ids[row["category"]]),
                iscrowd=bool(row["crowd"]),
                area=int(row["pixels"]),
                bbox=tuple(row["bbox"].tolist()),
                cause=CAUSES[row["cause"]],
                other=int(row["other"]) if known else None,
                iou=float(row["intersection"] / row["union"]) if known else None,
                cost=first + second,
                boundary_cost=first if matched else 0.0,
                score=None if math.isnan(row["score"]) else float(row["score"]),
            )

    def image_costs(self) -> npt.NDArray[np.float64]:
        """What the segments of each image cost, in points of PQ, (N,); the sum is 100 - PQ."""
        return np.array([self._costs(image.rows).sum() for image in self.images], dtype=np.float64)

    def _costs(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.float64]:
        return np.asarray(segment_losses(rows).sum(axis=1) * self._price[rows["category"]], dtype=np.float64)

    @cached_property
    def _price(self) -> npt.NDArray[Any]:
        return self.losses.price()

    def totals(self) -> dict[str, Any]:
        """Points of PQ by group, class and cause, and PQ with one cause mended, for JSON.

        Returns:
            ``{"All" | "Things" | "Stuff": {"pq", "n", "costs": {cause: points}, "repaired": {cause: PQ}}}`` in percent,
            NaN as None; ``"per_class"``: rows with ``id``, ``name``, ``isthing``, ``pq``, ``tp``, ``fp``, ``fn``,
            ``costs`` (points of the PQ of all classes), and ``false_positives``, ``false_negatives`` by cause.
        """
        return {**{group: self._group(group) for group in GROUPS}, "per_class": self._per_class()}

    def _group(self, group: str) -> dict[str, Any]:
        by_cause = self.losses.costs(group).sum(axis=0).tolist()
        n, pq = int(self.losses.group(group).sum()), self.losses.pq(group)
        repaired = [self.losses.repaired(column, group) for column in range(len(COLUMNS))] if n else []
        return {
            "pq": _finite(pq),
            "n": n,
            "costs": dict(zip(COLUMNS, by_cause, strict=True)),
            "repaired": {name: _finite(value) for name, value in zip(COLUMNS, repaired, strict=False)},
        }

    def _per_class(self) -> list[dict[str, Any]]:
        losses, quality = self.losses, self.counts.summarize()["per_class"]
        costs = losses.costs().tolist()
        rows = []
        for index, id_ in enumerate(self.categories.dataset_ids):
            fp, fn = losses.fp_by[index].tolist(), losses.fn_by[index].tolist()
            rows.append(
                {
                    "id": id_,
                    "name": self.categories.name(id_),
                    "isthing": self.categories.isthing(id_),
                    "pq": 100 * quality[id_]["pq"],
                    "tp": int(losses.tp[index]),
                    "fp": sum(fp),
                    "fn": sum(fn),
                    "costs": dict(zip(COLUMNS, costs[index], strict=True)),
                    "false_positives": _positive(fp),
                    "false_negatives": _positive(fn),
                }
            )
        return rows

    def json(self) -> dict[str, Any]:
        """:meth:`totals` and ``"images"``: each with its ``segments``, see :class:`SegmentErrors`."""
        images = [
            {
                "image_id": image.image_id,
                "height": image.height,
                "width": image.width,
                "gt_file_name": image.gt_file_name,
                "pred_file_name": image.pred_file_name,
                "segments": [asdict(segment) for segment in self.segments(image)],
            }
            for image in self.images
        ]
        return {**self.totals(), "images": images}


def _positive(numbers: list[int]) -> dict[str, int]:
    return {name: number for name, number in zip(COLUMNS, numbers, strict=True) if number}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
