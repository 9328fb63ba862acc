"""What an evaluation keeps of its images (12 bytes each, 12 a match, 2 an error) and how it becomes one result."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..categories import PanopticCategories
from .panoptic_quality import MATCH_DTYPE, ImageCounts, PQCounts

__all__ = ["ImageRecords", "fold_records", "image_positions"]


class ImageRecords:
    """Counts of many images, column by column; small enough to be gathered from all ranks."""

    def __init__(self) -> None:
        self.positions = array("q")
        self.num_matches = array("I")
        self.num_wrong_areas = 0
        self.matches = bytearray()
        self.false_positives = array("H")
        self.false_negatives = array("H")

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, position: int, counts: ImageCounts) -> None:
        """Keep the counts of the image at a position of the ground truth's JSON."""
        self.positions.append(position)
        self.num_matches.append(len(counts.matches))
        self.num_wrong_areas += counts.num_wrong_areas
        self.matches += counts.matches.tobytes()
        self.false_positives.extend(counts.false_positives.tolist())
        self.false_negatives.extend(counts.false_negatives.tolist())

    def state_dict(self) -> dict[str, Any]:
        """All of it, as numbers and bytes."""
        return {name: value if isinstance(value, int) else bytes(value) for name, value in vars(self).items()}

    def add_state(self, state: dict[str, Any]) -> None:
        """Keep the images of another one's :meth:`state_dict` too."""
        for name, value in state.items():
            own = getattr(self, name)
            if isinstance(own, array):
                own.frombytes(value)
            else:
                setattr(self, name, own + value)


def image_positions(records: Sequence[ImageRecords]) -> npt.NDArray[np.int64]:
    """Positions of all images, int64 (N,), in no particular order."""
    return np.concatenate([np.frombuffer(r.positions, np.int64) for r in records])


def fold_records(records: Sequence[ImageRecords], categories: PanopticCategories) -> PQCounts:
    """Counts of all images, added in the order of the ground truth's JSON whoever saw them in whatever order.

    ``records``: one an evaluating process, at least one, no image twice.
    """
    repeats = np.concatenate([np.frombuffer(r.num_matches, np.uint32) for r in records])
    matches = np.concatenate([np.frombuffer(bytes(r.matches), MATCH_DTYPE) for r in records])
    order = np.argsort(np.repeat(image_positions(records), repeats), kind="stable")
    counts = ImageCounts(
        matches=matches[order],
        false_positives=np.concatenate([np.array(r.false_positives, np.int64) for r in records]),
        false_negatives=np.concatenate([np.array(r.false_negatives, np.int64) for r in records]),
        num_wrong_areas=sum(r.num_wrong_areas for r in records),
    )
    return PQCounts.from_image(categories, counts)
