"""Metrics for the table of the zoo, from what an evaluation left."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..engine.checkpoints.checkpoint import PanopticCheckpointer
from ..engine.evaluating.evaluation_pages import PQ_BY_CLASS

__all__ = ["metrics_of_results", "read_results"]

# Name in the table: task and name in detectron2's results.
_METRICS = {
    **{f"{m}{group}": ("panoptic_seg", f"{m}{group}") for group in ("", "_th", "_st") for m in ("PQ", "SQ", "RQ")},
    "mIoU": ("sem_seg", "mIoU"),
    "box AP": ("bbox", "AP"),
    "mask AP": ("segm", "AP"),
}
_TASKS = {task for task, _ in _METRICS.values()}
_NEEDED = {"panoptic_seg": ("PQ", "SQ", "RQ"), "instances": ("box AP", "mask AP"), "sem_seg": ("mIoU",)}


def read_results(path: str, checkpoint: str, dataset: str) -> dict[str, dict[str, float]]:
    """detectron2's results by task from a file.

    Args:
        path: a JSON file that holds the results dict, or the ``metrics.json`` of a training: its last evaluation
            counts, and must be of the checkpoint's iteration.
        checkpoint: the weights that the results are said to be of.
        dataset: what they are said to be measured on. A ``metrics.json`` names it, other files do not.

    Raises:
        ValueError: no JSON, no evaluation in it, or one of another iteration or dataset.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    rows = _json_objects(text, path)
    if len(rows) == 1 and not _TASKS.isdisjoint(rows[0]):
        if not all(isinstance(rows[0].get(task, {}), dict) for task in _TASKS):
            raise ValueError(f"{path} holds no results of detectron2: by task, each with its metrics.")
        return rows[0]
    evaluations = [row for row in rows if any(_task(key) for key in row)]
    if not evaluations:
        raise ValueError(f"{path} holds no evaluation; leave --results out to evaluate now.")
    last = evaluations[-1]
    _check_iteration(last["iteration"], path, checkpoint)
    _check_dataset(last, path, dataset)
    return {task: {key[len(task) + 1 :]: last[key] for key in last if _task(key) == task} for task in _TASKS}


def _json_objects(text: str, path: str) -> list[dict[str, Any]]:
    """The objects of a JSON file, or of a file with one in each line."""
    try:
        try:
            objects = [json.loads(text)]
        except json.JSONDecodeError:
            objects = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}).") from error
    return [x for x in objects if isinstance(x, dict)]


def _task(key: str) -> str | None:
    """Task of a key like ``"panoptic_seg/PQ"`` of ``metrics.json``."""
    task = key.partition("/")[0]
    return task if task in _TASKS and task != key else None


def _check_iteration(iteration: float, path: str, checkpoint: str) -> None:
    saved = PanopticCheckpointer(nn.Module()).read(checkpoint).get("iteration")
    if saved is None or iteration not in (saved, saved + 1):  # the evaluation that ends a training counts one more
        raise ValueError(
            f"The last evaluation in {path} is of iteration {iteration}, the checkpoint {checkpoint} of {saved}; leave "
            "--results out to evaluate now."
        )


def _check_dataset(row: Mapping[str, Any], path: str, dataset: str) -> None:
    of_classes = [key.removeprefix(PQ_BY_CLASS) for key in row if key.startswith(PQ_BY_CLASS)]
    if of_classes and not any(key.startswith(f"{dataset}/") for key in of_classes):
        measured = of_classes[0].partition("/")[0]
        raise ValueError(
            f"The last evaluation in {path} is of {measured}, the config's DATASETS.TEST is {dataset}. Where the row "
            f"is to be of {measured}: --opts DATASETS.TEST \"('{measured}',)\"."
        )


def metrics_of_results(results: Mapping[str, Mapping[str, Any]], outputs: frozenset[str]) -> dict[str, float]:
    """The table's metrics from detectron2's results.

    Args:
        results: by task.
        outputs: what the model predicts, see :func:`~panoptic_fpn_ext.engine.settings.model_outputs.model_outputs`.

    Raises:
        ValueError: a metric of one of the outputs is missing or not a number.
    """
    found = {name: results.get(task, {}).get(key) for name, (task, key) in _METRICS.items()}
    wrong = {name: value for name, value in found.items() if not isinstance(value, (int, float, type(None)))}
    if wrong:
        raise ValueError(f"The results must be numbers, got {wrong}.")
    metrics = {name: round(float(value), 4) for name, value in found.items() if value is not None}
    needed = [name for output in _NEEDED if output in outputs for name in _NEEDED[output]]
    missing = [name for name in needed if not math.isfinite(metrics.get(name, math.nan))]
    if missing:
        raise ValueError(f"No numbers for {missing}: the results have {sorted(metrics) or 'no metrics'}.")
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
