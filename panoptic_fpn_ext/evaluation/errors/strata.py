"""PQ by what segments are like: size, crowding of their image, truncation, occlusion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .analysis import PanopticErrors
from .costs import Losses

__all__ = ["STRATA", "Stratum", "strata"]

STRATA: Final = ("size", "crowding", "truncation", "occlusion")
_SIZES = ("small, below 32² px", "medium, below 96² px", "large")  # COCO's
_CROWDING = ("no thing", "1 to 5 things", "6 to 15 things", "more than 15 things")
_TRUNCATION = ("inside the image", "at the image's border")
_OCCLUSION = ("no thing beside it", "beside another thing")


@dataclass(frozen=True)
class Stratum:
    """Segments of one kind: counts, and PQ, SQ and RQ in percent over the classes that occur, None where none does."""

    name: str
    tp: int
    fp: int
    fn: int
    pq: float | None
    sq: float | None
    rq: float | None


def strata(errors: PanopticErrors) -> dict[str, list[Stratum]]:
    """PQ by size, crowding, truncation and occlusion, the last of things only.

    A match and a false negative count where the ground truth's segment belongs. A false positive counts by its own
    size and place; for occlusion, by those of the segment that shows its cause, and as not occluded without one.
    """
    rows = errors.rows
    kinds: dict[str, tuple[Sequence[str], npt.NDArray[np.int64]]] = {
        "size": (_SIZES, np.searchsorted([32**2, 96**2], rows["pixels"], side="right")),
        "crowding": (_CROWDING, _crowding(errors)),
        "truncation": (_TRUNCATION, _at_border(errors).astype(np.int64)),
        "occlusion": (_OCCLUSION, np.where(_isthing(errors)[rows["category"]], _occluded(errors), -1)),
    }
    return {
        kind: [_stratum(errors, name, rows[bins == index]) for index, name in enumerate(names)]
        for kind, (names, bins) in kinds.items()
    }


def _isthing(errors: PanopticErrors) -> npt.NDArray[np.bool_]:
    return np.array([errors.categories.isthing(id_) for id_ in errors.categories.dataset_ids], dtype=np.bool_)


def _crowding(errors: PanopticErrors) -> npt.NDArray[np.int64]:
    rows, image = errors.rows, errors.image_of_row
    things = _isthing(errors)[rows["category"]] & ~rows["predicted"]
    numbers = np.bincount(image[things], minlength=len(errors.images))
    return np.searchsorted([1, 6, 16], numbers, side="right")[image]


def _at_border(errors: PanopticErrors) -> npt.NDArray[np.bool_]:
    rows, image = errors.rows, errors.image_of_row
    sizes = np.array([[i.width, i.height] for i in errors.images], dtype=np.int64).reshape(-1, 2)[image]
    box = rows["bbox"]
    return np.asarray(((box[:, :2] == 0) | (box[:, :2] + box[:, 2:] == sizes)).any(axis=1))


def _occluded(errors: PanopticErrors) -> npt.NDArray[np.int64]:
    """1 where a segment, or of a prediction the ground truth's that shows its cause, stands beside a thing."""
    rows, image = errors.rows, errors.image_of_row
    result = rows["touches_thing"].astype(np.int64)
    keys = image * 2**24 + rows["id"]
    truth = ~rows["predicted"] & (result == 1)
    result[rows["predicted"]] = np.isin((image * 2**24 + rows["other"])[rows["predicted"]], keys[truth])
    return result


def _stratum(errors: PanopticErrors, name: str, rows: npt.NDArray[np.void]) -> Stratum:
    losses = Losses.of(errors.categories, rows)
    inside = losses.group("All")
    fp, fn = losses.fp_by.sum(axis=1), losses.fn_by.sum(axis=1)
    sizes, tp = losses.sizes, losses.tp
    iou_sum = sizes - losses.table.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means: list[Any] = [(iou_sum / sizes)[inside], np.nan_to_num(iou_sum / tp)[inside], (tp / sizes)[inside]]
    pq, sq, rq = (100 * float(values.mean()) if inside.any() else None for values in means)
    return Stratum(name, int(tp.sum()), int(fp.sum()), int(fn.sum()), pq, sq, rq)
