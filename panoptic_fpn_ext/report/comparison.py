"""Two models on one ground truth: what the second gained and lost over the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation.errors import Difference, compare_models
from .causes import cause_rows
from .content import INTERVAL, class_costs
from .costs import Costs
from .page import Section
from .sources import Source
from .tables import Column, Table, shown

__all__ = ["comparison_section"]


def comparison_section(source: Source, costs: Sequence[Costs]) -> Section:
    """What the second model gained and lost over the first, by cause and class."""
    first, second = costs
    difference = compare_models(first.errors, second.errors)
    causes, classes = cause_rows(), costs[0].errors.categories
    by_cause: list[list[Any]] = [
        [cause["name"], float(a), float(b), float(a - b)]
        for cause, a, b in zip(causes, first.total, second.total, strict=True)
        if a or b
    ]
    a, b = class_costs(first).sum(axis=1), class_costs(second).sum(axis=1)
    sides = difference.intervals.per_class
    by_class: list[list[Any]] = [
        [
            classes.name(id_),
            float(a[i]),
            float(b[i]),
            float(a[i] - b[i]),
            *map(float, sides[i]),
        ]
        for i, id_ in enumerate(classes.dataset_ids)
        if a[i] or b[i]
    ]
    named = [Column(f"lost by {name}", "points") for name in source.models]
    gained = Column(f"gained by {source.models[1]}", "change")
    tables = []
    for key, rows in (("cause", by_cause), ("class", by_class)):
        rows.sort(key=lambda row: -abs(row[3]))
        total: list[Any] = ["all", *(sum(row[i] for row in rows) for i in (1, 2, 3))]
        caption = f"Points of PQ gained and lost by {key}"
        columns = [Column(key), *named, gained]
        if key == "class":
            columns += [Column("change of its PQ, from", "change", INTERVAL), Column("to", "change", INTERVAL)]
            total += [None, None]
        tables.append(Table(f"gained-by-{key}", caption, columns, rows, total=total))
    low, high = difference.intervals.groups["All"]
    text = (
        f"PQ of {source.models[1]} minus PQ of {source.models[0]}: {shown(float(a.sum() - b.sum()), 'change')}, 95 %: "
        f"{shown(low, 'change')} to {shown(high, 'change')}, from the same images drawn again and again. Below, points "
        "of PQ gained (+) and lost (−)."
    )
    title = f"{source.models[1]} against {source.models[0]}"
    return Section("compared", "Compared", title, [*tables, _segment_changes(source, difference)], text)


def _segment_changes(source: Source, difference: Difference) -> Table:
    """By cause: segments that only one of the two models matches."""
    first, second = source.models
    rows = [
        [cause["name"], int(gained), int(lost)]
        for cause, gained, lost in zip(
            cause_rows(), difference.gained.sum(axis=0), difference.lost.sum(axis=0), strict=False
        )
        if gained or lost
    ]
    columns = [
        Column("cause"),
        Column(f"of {first}, mended by {second}", "count"),
        Column(f"of {second}, where {first} matched", "count"),
    ]
    return Table("changed-segments", "Segments of the ground truth that only one of the models matches", columns, rows)
