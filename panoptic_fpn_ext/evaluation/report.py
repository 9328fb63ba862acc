"""One result in the shapes that readers want: detectron2's dict, tables, JSON."""

import math
from collections import OrderedDict
from typing import Any

from tabulate import tabulate

from ..unique_names import distinct_names
from .panoptic_quality import PQCounts

__all__ = ["class_table", "detectron2_results", "group_table", "json_report", "wrong_areas"]

GROUPS = {"All": "", "Things": "_th", "Stuff": "_st"}
METRICS = ("pq", "sq", "rq")


def detectron2_results(counts: PQCounts) -> dict[str, "OrderedDict[str, float]"]:
    """``{"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", …, "RQ_st"}}`` in percent; NaN for a group without a category."""
    summary = counts.summarize()
    values = OrderedDict(
        (metric.upper() + suffix, 100 * summary[group][metric])
        for group, suffix in GROUPS.items()
        for metric in METRICS
    )
    return {"panoptic_seg": values}


def group_table(counts: PQCounts) -> str:
    """All, Things, Stuff in percent, as detectron2 prints them."""
    summary = counts.summarize()
    rows = [[g, *(100 * summary[g][m] for m in METRICS), summary[g]["n"]] for g in GROUPS]
    return _table(["", "PQ", "SQ", "RQ", "#categories"], rows)


def class_table(counts: PQCounts) -> str:
    """One row for each category that occurs: percent, then its true positives, false positives and false negatives.

    Things come before stuff, and of each kind the best before the worst.
    """
    every = _class_rows(counts)
    names = distinct_names([row["name"] for row in every], [row["id"] for row in every])
    found = [{**row, "name": name} for name, row in zip(names, every, strict=True) if row["tp"] + row["fp"] + row["fn"]]
    found.sort(key=lambda row: (not row["isthing"], -row["pq"]))
    rows = [[row["name"], *(100 * row[m] for m in METRICS), row["tp"], row["fp"], row["fn"]] for row in found]
    return _table(["category", "PQ", "SQ", "RQ", "TP", "FP", "FN"], rows)


def json_report(counts: PQCounts) -> dict[str, Any]:
    """Fractions and counts for a JSON file, null in place of NaN (a group without a category) and of the infinite IoU
    that a wrong JSON area can make: JSON has neither.
    """
    summary = counts.summarize()
    groups = {g: _finite(summary[g]) for g in GROUPS}
    return {**groups, "per_class": [_finite(row) for row in _class_rows(counts)]}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def wrong_areas(count: int) -> str:
    """What is to be said of ground-truth segments with a JSON area other than their pixels; "" if there is none."""
    if not count:
        return ""
    return (
        f"The areas in the ground truth's JSON of {count} segments are not their numbers of pixels. The result "
        "follows the JSON, as panopticapi's does, and can even exceed 100 %; correct the JSON for a sound one."
    )


def _class_rows(counts: PQCounts) -> list[dict[str, Any]]:
    categories, per_class = counts.categories, counts.summarize()["per_class"]
    columns = zip(counts.iou_sum.tolist(), counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist(), strict=True)
    return [
        {"id": id_, "name": categories.name(id_), "isthing": categories.isthing(id_), **per_class[id_]}
        | {"iou_sum": iou_sum, "tp": tp, "fp": fp, "fn": fn}
        for id_, (iou_sum, tp, fp, fn) in zip(categories.dataset_ids, columns, strict=True)
    ]


def _table(headers: list[str], rows: list[list[Any]]) -> str:
    aligned = {"tablefmt": "pipe", "floatfmt": ".3f", "stralign": "center", "numalign": "center"}
    return str(tabulate(rows, headers=headers, **aligned))
