"""Why points are lost with one setting of the thresholds, and which of them a threshold cost."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.errors.dropped import DroppedSegment
from ..evaluation.errors.records import ErrorRecords
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.model_ids import ModelIds
from ..evaluation.panoptic_quality import ImageCounts, compare_image
from ..evaluation.segments import parse_segments
from .recount import combine, with_stuff
from .stored import CombinerInputs

__all__ = ["explain"]


def explain(
    records: ErrorRecords,
    inputs: CombinerInputs,
    truth: GroundTruth,
    position: int,
    ids: ModelIds,
    thing_sem_seg_ids: Collection[int],
    setting: tuple[float, float, float],
) -> ImageCounts:
    """Keep the errors of one image, with what the combiner left out, and count it.

    Args:
        records: to add to.
        inputs: what the combiner was given, as many instances as the causes are wanted of.
        truth, position, ids, thing_sem_seg_ids: as ``recount``.
        setting: overlap threshold, score threshold, area limit (px).
    """
    overlap, score, area = setting
    number = int(np.count_nonzero(inputs.scores >= score))
    _, things, accepted = next(combine(inputs, overlap, [number]))
    full = with_stuff(inputs, things, len(accepted), thing_sem_seg_ids)
    found, pixels = np.unique(full, return_counts=True)
    stuff = {int(id_): int(px) for id_, px in zip(found, pixels, strict=True) if id_ > len(accepted)}
    small = [id_ for id_, px in stuff.items() if px < area]
    segments = [
        {"id": k + 1, "category_id": int(inputs.classes[row]), "isthing": True, "score": float(inputs.scores[row])}
        for k, row in enumerate(accepted)
    ]
    segments += [_stuff(id_, len(accepted)) for id_ in stuff if id_ not in small]
    dropped: list[tuple[dict[str, Any], str, npt.NDArray[np.bool_]]] = [
        (_stuff(id_, len(accepted)), "below_area_limit", full == id_) for id_ in small
    ]
    dropped += _dropped_instances(inputs, number, set(accepted))
    full = np.where(np.isin(full, small), 0, full)
    pred_ids, listed, _ = ids.to_dataset(full, segments)
    maps = truth.compare(position, pred_ids, parse_segments(listed, truth.category_index, predicted=True)[0])
    compared = compare_image(*maps)
    _, rows, _ = ids.to_dataset(full, [segment for segment, _, _ in dropped])
    known = [
        DroppedSegment(truth.category_index[row["category_id"]], cause, mask)
        for row, (_, cause, mask) in zip(rows, dropped, strict=True)
    ]
    records.add(position, maps, compared, listed, dropped=known)
    return compared.counts


def _stuff(id_: int, things: int) -> dict[str, Any]:
    return {"id": id_, "category_id": id_ - things - 1, "isthing": False}


def _dropped_instances(
    inputs: CombinerInputs, number: int, accepted: set[int]
) -> Iterator[tuple[dict[str, Any], str, npt.NDArray[np.bool_]]]:
    """Instances without a segment; the first ``number`` had the score for one."""
    for k in range(len(inputs.scores)):
        if k in accepted:
            continue
        mask = np.zeros(inputs.labels.shape, np.bool_)
        top, bottom, left, right = inputs.windows[k]
        mask[top:bottom, left:right] = inputs.masks[k]
        cause = "below_overlap_threshold" if k < number else "below_score_threshold"
        yield {"id": k + 1, "category_id": int(inputs.classes[k]), "isthing": True}, cause, mask
