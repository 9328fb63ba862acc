"""What an evaluation keeps of the errors of its images: one table a process, small enough to be gathered."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..ground_truth import GroundTruth
from ..panoptic_quality import Comparison, PQCounts
from ..segments import SegmentMap
from .analysis import ImageErrors, PanopticErrors
from .confusion import count_pixels
from .dropped import DroppedSegment, mark_dropped
from .image import SEGMENT_DTYPE, explain_measured
from .measured import Measured, join, measure
from .scores import read_scores, set_scores
from .shapes import id_map

__all__ = ["ErrorRecords", "join_records"]


_TOGETHER: Final = 64
"""Images whose causes are found at once: of one alone the tables are so small that the calls would take the time."""


class _Waiting(NamedTuple):
    position: int
    shape: tuple[int, ...]
    measured: Measured
    scores: dict[int, float]
    file_name: str | None


class ErrorRecords:
    """Tables of segments, 80 bytes a segment, and one matrix of pixels."""

    def __init__(self, truth: GroundTruth) -> None:
        """``truth``: the ground truth of all images."""
        self._truth = truth
        self._columns = {name: array("q") for name in ("positions", "heights", "widths", "num_rows")}
        self._rows = bytearray()
        self._names: list[str | None] = []
        self._waiting: list[_Waiting] = []
        self._pixels = np.zeros((len(truth.categories) + 1,) * 2, np.int64)

    def add(
        self,
        position: int,
        maps: tuple[SegmentMap, SegmentMap],
        compared: Comparison,
        segments: Sequence[Mapping[str, Any]],
        file_name: str | None = None,
        dropped: Sequence[DroppedSegment] = (),
    ) -> None:
        """Keep what one image's errors are.

        Args:
            position: of the image in the ground truth's JSON.
            maps: ground truth and prediction.
            compared: ``compare_image`` of them.
            segments: the prediction's, with ``id`` and perhaps ``score``.
            file_name: of the prediction's PNG.
            dropped: what the combiner left out, where that is known.

        Raises:
            ValueError: see ``measure``, or a score that is no number.
        """
        measured = measure(*maps, compared, self._truth.isthing)
        self._waiting.append(_Waiting(position, maps[0].shape, measured, read_scores(segments), file_name))
        if dropped or len(self._waiting) == _TOGETHER:
            self._explain(maps[0], dropped)

    def _explain(self, last: SegmentMap | None = None, dropped: Sequence[DroppedSegment] = ()) -> None:
        """Explain the images that wait; ``last``: the ground truth of the last one, ``dropped``: of the same."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        joined = join([image.measured for image in waiting])
        tables = explain_measured(joined, self._truth.isthing)
        count_pixels(joined.tables, self._pixels)
        if last is not None and dropped:
            tables[-1] = mark_dropped(tables[-1], id_map(last), dropped)
        for image, rows in zip(waiting, tables, strict=True):
            set_scores(rows, image.scores)
            for column, value in zip(self._columns.values(), (image.position, *image.shape, len(rows)), strict=True):
                column.append(value)
            self._rows += rows.tobytes()
            self._names.append(image.file_name)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as numbers, texts and bytes."""
        self._explain()
        columns = {name: column.tobytes() for name, column in self._columns.items()}
        return {**columns, "rows": bytes(self._rows), "names": list(self._names), "pixels": self._pixels.tobytes()}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Keep the images of another one's :meth:`state_dict` too."""
        self._explain()
        for name, column in self._columns.items():
            column.frombytes(state[name])
        self._rows += state["rows"]
        self._names += state["names"]
        self._pixels += np.frombuffer(state["pixels"], np.int64).reshape(self._pixels.shape)

    def images(self) -> dict[int, ImageErrors]:
        """The images by position."""
        self._explain()
        positions, heights, widths, numbers = self._columns.values()
        tables = np.split(np.frombuffer(bytes(self._rows), SEGMENT_DTYPE), np.cumsum(numbers)[:-1].astype(np.intp))
        found = {}
        for index, position in enumerate(positions):
            found[position] = ImageErrors(
                image_id=self._truth.image_ids[position],
                height=heights[index],
                width=widths[index],
                rows=tables[index],
                gt_file_name=self._truth.file_names[position],
                pred_file_name=self._names[index],
            )
        return found

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Pixels by class of the ground truth and of the prediction, see ``count_pixels``."""
        self._explain()
        return self._pixels


def join_records(truth: GroundTruth, states: Sequence[Mapping[str, Any]], counts: PQCounts) -> PanopticErrors:
    """The errors of all images in the order of the ground truth's JSON, whoever saw them in whatever order.

    Args:
        truth: the ground truth.
        states: :meth:`ErrorRecords.state_dict` of each process; no image is in two of them.
        counts: for PQ, of the same images.
    """
    joined = ErrorRecords(truth)
    for state in states:
        joined.add_state(state)
    images = joined.images()
    return PanopticErrors(truth.categories, tuple(images[p] for p in sorted(images)), counts, joined.pixels)
