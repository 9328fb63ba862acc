"""Curves of a training, from detectron2's ``metrics.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from .page import Block, Section
from .tables import Chart, Series

__all__ = ["metrics_rows", "training_section"]

_MOST_POINTS = 400
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#777777")


def training_section(metrics: str) -> list[Section]:
    """Losses, PQ and learning rate by iteration, as far as a file has them; empty where it has none.

    Args:
        metrics: path of ``metrics.json``, a JSON object a line; lines that were cut off are left out.
    """
    rows = sorted({row["iteration"]: row for row in metrics_rows(metrics)}.values(), key=lambda row: row["iteration"])
    keys = list(dict.fromkeys(key for row in rows for key in row))
    losses = [key for key in keys if key == "total_loss" or key.startswith("loss_")]
    quality = [f"panoptic_seg/{key}" for key in ("PQ", "PQ_th", "PQ_st")]
    wanted = [
        ("losses", "Losses", losses, "loss", True),
        ("quality", "Quality at each evaluation, in percent", quality, "percent", False),
        ("rate", "Learning rate", ["lr"], "learning rate", False),
    ]
    charts = [chart for name, caption, names, y, log in wanted if (chart := _chart(rows, name, caption, names, y, log))]
    if not charts:
        return []
    return [Section("training", "Training", "Training", [Block("charts", {"charts": charts})], "")]


def metrics_rows(path: str) -> Iterator[dict[str, Any]]:
    """The lines of detectron2's ``metrics.json``; those that were cut off are left out."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("iteration"), int):
                yield row


def _chart(rows: list[dict[str, Any]], name: str, caption: str, keys: list[str], y: str, log: bool) -> Chart | None:
    kept = [row for row in rows if any(_number(row.get(key)) is not None for key in keys)]
    step = max(1, math.ceil(len(kept) / _MOST_POINTS))
    thinned = [*kept[:-1:step], *kept[-1:]]
    series = [
        Series(key.removeprefix("panoptic_seg/"), values, _COLORS[number % len(_COLORS)])
        for number, key in enumerate(keys)
        if any(values := [_number(row.get(key)) for row in thinned])
    ]
    if not series:
        return None
    labels = [row["iteration"] for row in thinned]
    log = log and all(value is None or value > 0 for one in series for value in one.values)
    return Chart(f"training-{name}", caption, labels, series, "lines", "iteration", y, numeric=True, log=log)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
