"""The sections of a report: what was counted, as tables and charts with the words that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.errors import COLUMNS
from ..evaluation.report import json_report
from .causes import cause_rows
from .costs import Costs
from .page import KEYS, Block, Section
from .sources import Source
from .tables import Chart, Column, Series, Table, shown

__all__ = [
    "INTERVAL",
    "about_section",
    "class_costs",
    "class_section",
    "headline",
    "images_section",
    "labels_section",
    "lost_section",
    "segments_section",
]

_MOST_BARS = 30
_METRICS = ("pq", "sq", "rq")
INTERVAL = "95 % interval of PQ, over images that are drawn again and again"
"""Help of the columns that have its ends."""


def headline(source: Source, costs: Sequence[Costs]) -> dict[str, Any]:
    """``figures`` and ``strips`` at the top of the page."""
    figures = []
    for name, one in zip(source.models, costs, strict=True):
        report, suffix = json_report(one.errors.counts), f" of {name}" if len(costs) > 1 else ""
        rows = [("All", "PQ"), ("Things", "PQ of things"), ("Stuff", "PQ of stuff")]
        for group, title in rows:
            values = {metric: report[group][metric] for metric in _METRICS}
            if values["pq"] is not None:
                sq, rq = (shown(100 * values[key], "percent") for key in ("sq", "rq"))
                more = f"SQ {sq}, RQ {rq}, {report[group]['n']} classes"
                low, high = (shown(value, "percent") for value in one.intervals.groups[group])
                if low and high:
                    more = f"95 %: {low} to {high}; {more}"
                figures.append({"name": title + suffix, "value": shown(100 * values["pq"], "percent"), "more": more})
    strips = [_strip(name, one, len(costs) > 1) for name, one in zip(source.models, costs, strict=True)]
    return {"figures": figures, "strips": strips}


def _strip(name: str, costs: Costs, named: bool) -> dict[str, Any]:
    total, causes = costs.total, cause_rows()
    parts: list[dict[str, Any]] = [{"name": "PQ", "value": 100 - total.sum(), "kept": True}]
    parts += [
        {"name": cause["name"], "value": value, "color": cause["color"], "kept": False}
        for cause, value in zip(causes, total.tolist(), strict=True)
        if value > 0
    ]
    return {"caption": f"100 points of PQ{' of ' + name if named else ''}: kept, and lost by cause", "parts": parts}


def lost_section(source: Source, costs: Sequence[Costs]) -> Section:
    """Points by cause and class, which sum to 100 - PQ."""
    blocks: list[Any] = []
    for number, (name, one) in enumerate(zip(source.models, costs, strict=True)):
        suffix, key = (f", {name}", f"-{number + 1}") if len(costs) > 1 else ("", "")
        blocks += [
            _cause_table(one, suffix, key),
            _cause_chart(one, suffix, key),
            _class_causes(source, one, suffix, key),
        ]
    text = (
        "PQ is the mean of the classes' PQ, so every unmatched segment and every overlap that is not perfect costs a "
        "part of it. An unmatched segment costs its own class one half, a match 1 − IoU, each divided by the size "
        "of the class (TP + FP/2 + FN/2) and the number of classes. All of it sums to 100 − PQ."
    )
    return Section("lost", "Lost points", "Where the points went", blocks, text)


def _used(costs: Costs) -> list[int]:
    """Columns that cost something, the dearest first."""
    return [int(column) for column in np.argsort(-costs.total, kind="stable") if costs.total[column] > 0]


def _cause_table(costs: Costs, suffix: str, key: str) -> Table:
    losses, causes, used = costs.errors.losses, cause_rows(), _used(costs)
    rows = [
        [
            causes[column]["name"],
            float(costs.total[column]),
            int(losses.fn_by[:, column].sum()),
            int(losses.fp_by[:, column].sum()),
            float(losses.repaired(column)),
            causes[column]["text"],
        ]
        for column in used
    ]
    columns = [
        Column("cause"),
        Column("points of PQ", "points"),
        Column("false negatives", "count", "segments of the ground truth"),
        Column("false positives", "count", "predicted segments"),
        Column("PQ if mended", "percent", "with this cause gone and nothing else changed"),
        Column("what it means"),
    ]
    total = ["100 − PQ", float(costs.total.sum()), int(losses.fn_by.sum()), int(losses.fp_by.sum()), None, None]
    colors = [causes[column]["color"] for column in used]
    return Table(f"causes{key}", f"Points of PQ lost by cause{suffix}", columns, rows, colors=colors, total=total)


def class_costs(costs: Costs) -> npt.NDArray[np.float64]:
    """Points of PQ by class and column, (C, len(COLUMNS))."""
    return np.asarray(costs.errors.losses.costs(), np.float64)


def _cause_chart(costs: Costs, suffix: str, key: str) -> Chart:
    table, causes = class_costs(costs), cause_rows()
    order = [int(c) for c in np.argsort(-table.sum(axis=1), kind="stable") if table[c].sum() > 0][:_MOST_BARS]
    names = [costs.errors.categories.name(costs.errors.categories.dataset_ids[c]) for c in order]
    series = [
        Series(causes[column]["name"], [round(float(table[c, column]), 9) for c in order], causes[column]["color"])
        for column in _used(costs)
    ]
    few = f", the {_MOST_BARS} classes that lose most" if (table.sum(axis=1) > 0).sum() > _MOST_BARS else ""
    caption = f"Points of PQ lost by class and cause{suffix}{few}"
    return Chart(f"lost{key}", caption, names, series, "bars", "points of PQ", "class")


def _class_causes(source: Source, costs: Costs, suffix: str, key: str) -> Table:
    table, causes, used = class_costs(costs), cause_rows(), _used(costs)
    occurs = [int(c) for c in np.argsort(-table.sum(axis=1), kind="stable") if costs.errors.losses.sizes[c] > 0]
    categories = costs.errors.categories
    rows = [
        [categories.name(categories.dataset_ids[c]), float(table[c].sum()), *(float(table[c, k]) for k in used)]
        for c in occurs
    ]
    columns = [Column("class"), Column("all", "points"), *(Column(causes[k]["name"], "points") for k in used)]
    total = ["100 − PQ", float(table.sum()), *(float(table[:, k].sum()) for k in used)]
    colors, kinds = [source.colors[c] for c in occurs], [_kind(source.categories[c]) for c in occurs]
    caption = f"Points of PQ lost by class and cause{suffix}"
    return Table(f"lost-by-class{key}", caption, columns, rows, kinds, colors, total=total, filters=True)


def _kind(category: Mapping[str, Any]) -> str:
    return "thing" if category["isthing"] else "stuff"


def class_section(source: Source, costs: Sequence[Costs]) -> Section:
    """PQ, SQ, RQ and the counts of each class that occurs."""
    reports = [json_report(one.errors.counts)["per_class"] for one in costs]
    named = [f" {name}" if len(costs) > 1 else "" for name in source.models]
    occurs = [i for i in range(len(source.categories)) if any(r[i]["tp"] + r[i]["fp"] + r[i]["fn"] for r in reports)]
    columns = [Column("class"), Column("kind")]
    for name in named:
        columns += [Column(metric.upper() + name, "percent") for metric in _METRICS]
        columns += [Column(f"{side}{name}", "percent", INTERVAL) for side in ("from", "to")]
        columns += [Column(metric.upper() + name, "count") for metric in ("tp", "fp", "fn")]
    rows = [[reports[0][i]["name"], _kind(source.categories[i]), *_class_values(reports, costs, i)] for i in occurs]
    kinds, colors = [_kind(source.categories[i]) for i in occurs], [source.colors[i] for i in occurs]
    table = Table("classes", "Quality by class, in percent, and segments", columns, rows, kinds, colors, filters=True)
    groups = _group_table(source, costs)
    text = (
        "A prediction matches a segment of its class if their IoU is above 0.5. RQ says how many match, SQ how well; "
        "PQ is their product."
    )
    return Section("classes", "Classes", "Quality by class", [groups, table], text)


def _class_values(reports: Sequence[Sequence[Mapping[str, Any]]], costs: Sequence[Costs], index: int) -> list[Any]:
    values: list[Any] = []
    for report, one in zip(reports, costs, strict=True):
        row = report[index]
        values += [None if row[key] is None else 100 * row[key] for key in _METRICS]
        values += [float(side) for side in one.intervals.per_class[index]]
        values += [row[key] for key in ("tp", "fp", "fn")]
    return values


def _group_table(source: Source, costs: Sequence[Costs]) -> Table:
    rows = []
    for name, one in zip(source.models, costs, strict=True):
        report = json_report(one.errors.counts)
        for group in ("All", "Things", "Stuff"):
            values = [None if report[group][key] is None else 100 * report[group][key] for key in _METRICS]
            rows.append([f"{group}, {name}" if len(costs) > 1 else group, *values, report[group]["n"]])
    columns = [
        Column("classes"),
        *(Column(metric.upper(), "percent") for metric in _METRICS),
        Column("number", "count"),
    ]
    return Table("groups", "Means over classes, in percent", columns, rows)


def images_section(source: Source, num_shown: int) -> Section:
    """The gallery."""
    sorts = [("lost", "points lost"), ("name", "name"), ("order", "order of the report")]
    text = f"All {num_shown} images."
    if num_shown < len(source.images):
        text = f"{num_shown} of {len(source.images):,} images: those that lose most, of the segments below, and others."
    if not source.has_truth:
        sorts = [("order", "order of the files"), ("name", "name"), ("count", "number of segments")]
    elif len(source.models) > 1:
        sorts.insert(1, ("differ", "difference of the models"))
        sorts.insert(2, ("gained", f"gained by {source.models[1]}"))
    text += " Open one to see image, ground truth, prediction and errors side by side."
    if not source.has_truth:
        text = f"{num_shown} of {len(source.images):,} images. Open one to see image and prediction side by side."
    return Section("images", "Images", "Images", [Block("gallery", {"sorts": sorts})], text)


def segments_section(source: Source, worst: Sequence[Mapping[str, Sequence[Any]]]) -> Section:
    """Segments that lose most, by cause."""
    blocks: list[Any] = []
    causes = {cause["key"]: cause for cause in cause_rows()}
    for number, (name, found) in enumerate(zip(source.models, worst, strict=True)):
        for key, segments in found.items():
            if segments:
                title = causes[key]["name"].capitalize() + (f", {name}" if len(worst) > 1 else "")
                blocks.append(Block("heading", {"title": title, "text": causes[key]["text"]}))
                blocks.append(Block("tiles", {"id": f"{key}-{number}"}))
    return Section("segments", "Segments", "Worst segments by cause", blocks, "The segments that cost most.")


def labels_section(suspects: Sequence[Mapping[str, Any]]) -> Section:
    """Suspected errors of the ground truth."""
    rows = [[one["title"], one["what"], float(one["suspicion"]), one["image"]] for one in suspects]
    columns = [Column("segment"), Column("suspicion"), Column("how strong", "points", "0 to 1"), Column("image")]
    table = Table("label-errors", "Labels that may be wrong", columns, rows, opens="suspects")
    text = (
        "Segments where a confident prediction, of a class that the model knows well, disagrees with the ground truth "
        "in a way that is rare for the class. Look before you change anything: the model may be wrong."
    )
    return Section("labels", "Labels", "Suspected label errors", [table, Block("tiles", {"id": "suspects"})], text)


def about_section(source: Source, notes: Sequence[tuple[str, str]] = ()) -> Section:
    """Files, keys, and what the library is."""
    rows = [*source.files.items(), *notes]
    library = (
        "The charts are drawn by Chart.js, which is part of this file (MIT licence, © Chart.js Contributors). "
        "Nothing is loaded from elsewhere."
    )
    blocks = [
        Block("definitions", {"rows": rows}),
        Block("heading", {"title": "Keys in the viewer", "text": ""}),
        Block("definitions", {"rows": KEYS}),
    ]
    return Section("about", "About", "About this report", blocks, library)


assert len(cause_rows()) == len(COLUMNS)
