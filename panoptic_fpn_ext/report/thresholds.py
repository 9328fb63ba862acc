"""PQ against each threshold of the combiner, from what ``python -m panoptic_fpn_ext.thresholds`` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..coco_json import load_json
from .page import Block, Section, write_page
from .tables import Chart, Column, Series, Table, shown

__all__ = ["thresholds_section", "write_thresholds_page"]

_AXES = {
    "overlap": ("OVERLAP_THRESH", "overlap threshold"),
    "score": ("INSTANCES_CONFIDENCE_THRESH", "score threshold"),
    "area": ("STUFF_AREA_LIMIT", "area limit, px"),
}
_SERIES = {"PQ": ("PQ", "#0072b2"), "PQ_th": ("PQ of things", "#d55e00"), "PQ_st": ("PQ of stuff", "#009e73")}
_OF_CLASS = "#cc79a7"
_MOST_ROWS = 20


def thresholds_section(path: str) -> Section:
    """Charts and a table of the settings that were counted.

    Args:
        path: of ``thresholds.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what the command writes.
    """
    content = load_json(path, "Results of the thresholds")
    try:
        return _section(content)
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise ValueError(
            f"{path} is not what python -m panoptic_fpn_ext.thresholds writes ({error!r}): run it again."
        ) from error


def write_thresholds_page(path: str, output: str, title: str) -> None:
    """Write the section of ``thresholds.json`` as a page of its own; errors as :func:`thresholds_section`."""
    section = thresholds_section(path)
    data: dict[str, Any] = {
        "models": [],
        "categories": [],
        "causes": [],
        "images": [],
        "segments": {},
        "confusion": None,
    }
    write_page(output, {"title": title, "subtitle": "", "sections": [section]}, data, [])


def _section(content: Mapping[str, Any]) -> Section:
    settings, category = content["settings"], content["category"]
    by_setting = {tuple(row[axis] for axis in _AXES): row for row in settings}
    best, config = (by_setting[tuple(content[key][axis] for axis in _AXES)] for key in ("best", "config"))
    what = "PQ" if category is None else f"PQ of {category}"
    gain = _value(best, category) - _value(config, category)
    text = (
        f"{len(settings)} settings, each counted with all images from one inference. The best one has {_text(best)}: "
        f"{what} {shown(_value(best, category), 'percent')}, {shown(gain, 'change')} points against the config's "
        f"({_text(config)}). In each chart one threshold changes, and the others are those of the best setting."
    )
    charts = [_chart(content, by_setting, axis) for axis in _AXES]
    return Section("thresholds", "Thresholds", "PQ against the combiner's thresholds",
                   [Block("charts", {"charts": charts}), _table(content, settings, category)], text)  # fmt: skip


def _value(row: Mapping[str, Any], category: str | None) -> float:
    value = row["PQ"] if category is None else row["per_class"][category]
    return float("-inf") if value is None else float(value)


def _text(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {row[axis]:g}" for axis in _AXES)


def _chart(content: Mapping[str, Any], by_setting: Mapping[tuple[float, ...], Any], axis: str) -> Chart:
    best, labels = content["best"], content["grid"][axis]
    rows = [by_setting[tuple(value if name == axis else best[name] for name in _AXES)] for value in labels]
    series = [
        Series(name, [row[key] for row in rows], color)
        for key, (name, color) in _SERIES.items()
        if any(row[key] is not None for row in rows)
    ]
    if content["category"] is not None:
        of_class = [row["per_class"][content["category"]] for row in rows]
        series.append(Series(f"PQ of {content['category']}", of_class, _OF_CLASS))
    key, name = _AXES[axis]
    if axis == "area":  # each is several times the one before
        return Chart("threshold-area", key, [f"{value:g}" for value in labels], series, "lines", name, "PQ")
    return Chart(f"threshold-{axis}", key, list(labels), series, "lines", name, "PQ", numeric=True)


def _table(content: Mapping[str, Any], settings: list[Any], category: str | None) -> Table:
    ranked = sorted(settings, key=lambda row: -_value(row, category))
    rows: list[list[Any]] = []
    for row in ranked:
        is_config = all(row[axis] == content["config"][axis] for axis in _AXES)
        values = [row[axis] for axis in _AXES] + [row[key] for key in _SERIES]
        values += [] if category is None else [row["per_class"][category]]
        rows.append([f"{len(rows) + 1}{', the config' if is_config else ''}", *values])
    columns = [Column("place"), *(Column(key, "figure") for key, _ in _AXES.values())]
    columns += [Column(name, "percent") for name, _ in _SERIES.values()]
    columns += [] if category is None else [Column(f"PQ of {category}", "percent")]
    few = f", the first {_MOST_ROWS}" if len(rows) > _MOST_ROWS else ""
    return Table("thresholds", f"Settings by {'PQ' if category is None else 'PQ of ' + category}{few}", columns, rows,
                 most=_MOST_ROWS)  # fmt: skip
