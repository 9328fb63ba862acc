"""What a conversion found, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from .conversion import EMPTY, Report
from .labels import Labels

__all__ = ["details", "summary"]


def summary(part: str, report: Report, labels: Labels) -> str:
    """What was found and what was dropped."""
    name = "" if part == "all" else f"{part}: "
    void = report.void / max(report.pixels, 1)
    lines = [f"{name}{report.images} images, {sum(report.segments.values())} segments, {void:.1%} of the pixels void."]
    if report.empty:
        lines.append(f"No segment: {report.empty} images, which are void as a whole, such as {report.examples[EMPTY]}.")
    lines += [f"Dropped: {why}: {n}, such as {report.examples[why]}." for why, n in report.dropped.most_common()]
    crowds = [labels.name(id_) for id_, n in report.crowds.items() if n and n == report.segments[id_]]
    if crowds:
        lines.append(f"Crowds only, so a model cannot learn to tell one from another: {', '.join(crowds)}.")
    return "\n".join(lines)


def details(report: Report, labels: Labels) -> str:
    """Categories and overlaps."""
    pixels = max(report.pixels, 1)
    rows = [_category_row(c, report, pixels) for c in labels.categories]
    heads = ["category", "kind", "segments", "of all pixels", "crowds", "hidden"]
    lines = [tabulate(rows, heads, tablefmt="simple", floatfmt=".3%")]
    for (below, above), taken in report.taken.most_common(10):
        share = f"{taken / pixels:.2%}"
        lines.append(f"Overlap: {labels.name(above)} took {taken} px ({share}) from {labels.name(below)}.")
    if len(report.taken) > 10:
        lines.append(f"… and {len(report.taken) - 10} more pairs of categories that overlap.")
    return "\n".join(lines)


def _category_row(category: Mapping[str, Any], report: Report, pixels: int) -> list[Any]:
    id_ = category["id"]
    kind = "thing" if category["isthing"] else "stuff"
    counts = [report.segments[id_], report.area[id_] / pixels, report.crowds[id_], report.hidden[id_]]
    return [category["name"], kind, *counts]
