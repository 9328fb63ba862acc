"""Further sections of a report: what is taken for what, PQ by kinds of segments, scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.errors import Calibration, calibrate, strata
from .costs import Costs
from .page import Block, Section
from .sources import Source
from .tables import Chart, Column, Series, Table

__all__ = ["calibration_section", "confusion_data", "confusion_section", "strata_section"]

_MOST_CLASSES, _MOST_PAIRS = 150, 40
_COLORS = ("#0072b2", "#d55e00")
_STRATA = {
    "size": "PQ by area of the segment",
    "crowding": "PQ by things in the image",
    "truncation": "PQ by place in the image",
    "occlusion": "PQ of things by neighbours",
}


def _named(source: Source, text: str, model: int) -> str:
    return text if len(source.models) == 1 else f"{text}, {source.models[model]}"


def _matrices(source: Source, costs: Sequence[Costs]) -> dict[str, npt.NDArray[np.int64]]:
    """Counts by class of the ground truth and of the prediction, void last; by what is counted."""
    found = {}
    for model, one in enumerate(costs):
        found[_named(source, "segments", model)] = one.errors.segment_confusion()
        found[_named(source, "pixels", model)] = one.errors.pixel_confusion
    return found


def confusion_data(source: Source, costs: Sequence[Costs]) -> dict[str, Any]:
    """``names`` and ``counts`` for the page's matrix: of the classes that occur, the most frequent ones."""
    matrices = _matrices(source, costs)
    total = sum(matrix.sum(axis=0) + matrix.sum(axis=1) for matrix in matrices.values())
    void = len(source.categories)
    often = [int(i) for i in np.argsort(-np.asarray(total), kind="stable") if i != void and np.asarray(total)[i] > 0]
    kept = [*sorted(often[:_MOST_CLASSES]), void]
    names = [str(source.categories[i]["name"]) for i in kept[:-1]] + ["void or nothing"]
    counts = {key: matrix[np.ix_(kept, kept)].tolist() for key, matrix in matrices.items()}
    return {"names": names, "counts": counts}


def confusion_section(source: Source, costs: Sequence[Costs]) -> Section:
    """The matrix, and the pairs of classes that are confused most."""
    matrices = _matrices(source, costs)
    names = [*(str(row["name"]) for row in source.categories), "void or nothing"]
    together = sum(matrices.values())
    pairs = np.argwhere(np.asarray(together) * (1 - np.eye(len(names), dtype=np.int64)) > 0)
    rows: list[list[Any]] = [
        [names[g], names[p], *(int(m[g, p]) for m in matrices.values())] for g, p in pairs.tolist()
    ]
    rows.sort(key=lambda row: -max(row[2::2]))
    columns = [Column("ground truth"), Column("predicted"), *(Column(key, "count") for key in matrices)]
    caption = "Classes that are confused" + (f", the first {_MOST_PAIRS}" if len(rows) > _MOST_PAIRS else "")
    table = Table("confusion", caption, columns, rows, most=_MOST_PAIRS)
    caption = "Rows: ground truth, columns: prediction; the stronger, the larger its share of the row"
    matrix = Block("matrix", {"caption": caption, "units": list(matrices)})
    text = "Segments: matches, and unmatched ones of the right shape and the wrong class. Pixels: all of them."
    return Section("confusion", "Confusion", "What is taken for what", [matrix, table], text)


def strata_section(source: Source, costs: Sequence[Costs]) -> Section:
    """PQ by size, crowding, truncation and occlusion."""
    found = [strata(one.errors) for one in costs]
    charts, rows = [], []
    for kind, caption in _STRATA.items():
        names = [one.name for one in found[0][kind]]
        series = [
            Series(name, [one.pq for one in of_model[kind]], _COLORS[model])
            for model, (name, of_model) in enumerate(zip(source.models, found, strict=True))
        ]
        charts.append(Chart(f"by-{kind}", caption, names, series, "columns", "", "PQ"))
        for model, of_model in enumerate(found):
            rows += [
                [_named(source, f"{kind}: {one.name}", model), one.pq, one.sq, one.rq, one.tp, one.fp, one.fn]
                for one in of_model[kind]
            ]
    columns = [Column("segments"), *(Column(name, "percent") for name in ("PQ", "SQ", "RQ"))]
    columns += [Column(name, "count") for name in ("TP", "FP", "FN")]
    table = Table("strata", "PQ by what segments are like, in percent", columns, rows)
    text = "Each bar is the PQ of these segments alone, as a mean over the classes that have some."
    return Section("strata", "Sizes", "PQ by size and surroundings", [Block("charts", {"charts": charts}), table], text)


def calibration_section(source: Source, costs: Sequence[Costs]) -> list[Section]:
    """Whether scores mean what they say; nothing where the predictions have none between 0 and 1."""
    found: list[tuple[int, Calibration]] = []
    for model, one in enumerate(costs):
        known = one.rows["score"][one.rows["predicted"]]
        known = known[~np.isnan(known)]
        if len(known) and known.min() >= 0 and known.max() <= 1:
            found.append((model, calibrate(one.rows)))
    if not found:
        return []
    edges = found[0][1].edges
    middles = [round(float(value), 3) for value in (edges[1:] + edges[:-1]) / 2]
    series = [Series("a score that means what it says", middles, "#888888", dashed=True)]
    rows = []
    for model, scores in found:
        share = [
            float(m / n) if n else None for m, n in zip(scores.matched.tolist(), scores.count.tolist(), strict=True)
        ]
        series.append(Series(_named(source, "matched", model), share, _COLORS[model]))
        for k, part in enumerate(share):
            interval = f"{edges[k]:.1f} to {edges[k + 1]:.1f}"
            percent = None if part is None else 100 * part
            score = 100 * float(scores.score[k]) if scores.count[k] else None
            rows.append([_named(source, interval, model), int(scores.count[k]), score, percent])
    many = len(source.models) > 1
    errors = ", ".join(f"{one.error:.3f}" + f" ({source.models[model]})" * many for model, one in found)
    chart = Chart(
        "calibration", "Predictions that match, by score", middles, series, "lines", "score", "share that matches",
        numeric=True, range=(0, 1),
    )  # fmt: skip
    columns = [Column("score"), Column("segments", "count"), Column("mean score, %", "percent")]
    columns.append(Column("matched, %", "percent"))
    table = Table("calibration", "Scores and matches", columns, rows)
    text = f"Of the segments with a score of 0.9, nine in ten should match. Expected calibration error: {errors}."
    return [Section("calibration", "Scores", "What scores mean", [chart, table], text)]
