"""Which classes a training has learnt by heart so far, and what is said of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from tabulate import tabulate

__all__ = ["AllLearnt", "StopWhenLearnt", "is_learnt", "verdict"]

logger = logging.getLogger(__name__)

_LEARNT = 0.5  # PQ of a class
_RISE = 0.05  # of PQ, more than from one evaluation to the next by chance

Row = Mapping[str, Any]
"""What an evaluation counted of a class: an entry of ``per_class`` in ``panoptic_quality.json``."""


class AllLearnt(BaseException):
    """Ends a training before its last iteration; no error, of which the trainer would log a traceback."""


class StopWhenLearnt(HookBase):
    """Reads what each evaluation found; comes after the hook that evaluates."""

    def __init__(self, folder: str, period: int) -> None:
        """``folder``: of the run. ``period``: iterations from one evaluation to the next."""
        self._folder, self._period = folder, period
        self.history: dict[int, list[dict[str, Any]]] = {}
        """Rows of the classes that the images show, by the iterations that were done; the same in all processes."""

    def after_step(self) -> None:
        """Raises :class:`AllLearnt`."""
        done = self.trainer.iter + 1
        if done % self._period or done >= self.trainer.max_iter:  # the last evaluation comes after the last step
            return
        rows = self.read(done)
        learnt = sum(map(is_learnt, rows))
        if comm.is_main_process():
            logger.info(f"Learnt after {done} iterations: {learnt} of {len(rows)} classes")
        if learnt == len(rows):
            raise AllLearnt

    def read(self, done: int) -> list[dict[str, Any]]:
        """What the evaluation after so many iterations found."""
        comm.synchronize()
        path = Path(self._folder, "inference", "panoptic_quality.json")
        if not path.is_file():
            raise ValueError(
                f"--overfit reads {path}, which the config's evaluator does not write: it needs the "
                "PanopticQualityEvaluator, with `inference` in the run's folder for its files."
            )
        content = json.loads(path.read_text(encoding="utf-8"))
        self.history[done] = [row for row in content["per_class"] if row["tp"] + row["fn"]]
        if not self.history[done]:
            raise ValueError("--overfit: the images have no segment that counts; all is void or crowd.")
        return self.history[done]


def is_learnt(row: Row) -> bool:
    """Whether the PQ of a class is 50 or more."""
    return (row["pq"] or 0) >= _LEARNT


def verdict(history: Mapping[int, Sequence[Row]]) -> str:
    """A table of what was learnt, and what follows from it.

    Args:
        history: see :class:`StopWhenLearnt`.
    """
    iterations, rows = max(history), sorted(history[max(history)], key=lambda row: row["pq"] or 0)
    lines = [_line(row, history) for row in rows]
    table = tabulate(lines, ["class", "kind", "segments", "PQ", ""], tablefmt="simple", floatfmt=".1f")
    bad = [row for row in rows if not is_learnt(row)]
    if not bad:
        return f"{table}\nThe pipeline is sound: each class was learnt in {iterations} iterations."
    rising = [row["name"] for row in bad if _rises(row, history)]
    stuck = [row["name"] for row in bad if row["name"] not in rising]
    text = f"{table}\nNot learnt in {iterations} iterations: {', '.join(row['name'] for row in bad)}."
    if rising:
        text += f" Still rising, so nothing is shown: {', '.join(rising)}. Give it more: SOLVER.MAX_ITER."
    if stuck:
        text += (
            f" Not rising: {', '.join(stuck)}. If the losses still fall, give it more, too; else look at their "
            "annotations (python -m panoptic_fpn_ext.data.check … --html PAGE.html) and at the warnings above."
        )
    return text


def _line(row: Row, history: Mapping[int, Sequence[Row]]) -> list[Any]:
    kind = "thing" if row["isthing"] else "stuff"
    return [row["name"], kind, row["tp"] + row["fn"], 100 * (row["pq"] or 0), _said(row, history)]


def _rises(row: Row, history: Mapping[int, Sequence[Row]]) -> bool:
    """Whether the PQ of a class was higher in the last third of the evaluations than ever before."""
    found = [next((r["pq"] or 0 for r in history[done] if r["name"] == row["name"]), 0) for done in sorted(history)]
    first = len(found) * 2 // 3
    return first > 0 and max(found[first:]) > max(found[:first]) + _RISE


def _said(row: Row, history: Mapping[int, Sequence[Row]]) -> str:
    if is_learnt(row):
        return "learnt"
    if row["tp"]:
        found = f"{row['fn']} not found, {row['fp']} where nothing is"
    else:
        found = "predicted, but never where it is" if row["fp"] else "never predicted"
    return f"{found}, rising" if _rises(row, history) else found
