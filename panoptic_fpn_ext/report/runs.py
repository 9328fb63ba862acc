"""The report of a run: what its last evaluation left, and the curves of its training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..coco_json import load_json
from ..evaluation.errors import PanopticErrors
from ..evaluation.panoptic_evaluator import EVALUATION_RECORD
from .curves import training_section
from .gallery import Budget
from .page import Section
from .thresholds import thresholds_section
from .writer import write_report

__all__ = ["files_of_runs", "find_evaluation", "report_of_run"]

_PLACES = ("", "inference*", "inference*/*", "*")
_AUGMENTED = "_TTA"  # behind the name of a folder, of results with test-time augmentation
_METRICS = "metrics.json"
_THRESHOLDS = ("thresholds.json", "thresholds/thresholds.json")


def find_evaluation(folder: str) -> dict[str, Any]:
    """The last evaluation of a run.

    Args:
        folder: ``OUTPUT_DIR`` of a training, or the folder of an evaluation's results.

    Returns:
        ``dataset``, ``panoptic_json``, ``panoptic_root``, ``image_root`` where the dataset has one, and ``folder``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its record is not sound.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"Folder {folder} does not exist.")
    found = [path for place in _PLACES for path in Path(folder).glob(f"{place}/{EVALUATION_RECORD}".lstrip("/"))]
    if not found:
        raise FileNotFoundError(
            f"{folder} has no results of an evaluation ({EVALUATION_RECORD} beside predictions.json). Evaluate first, "
            "as with train_net.py --eval-only, or name the JSONs of ground truth and predictions: GT.json PRED.json."
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    # Views are evaluated after the image itself, whose figures are the run's.
    plain = Path(*(part.removesuffix(_AUGMENTED) if part.startswith("inference") else part for part in newest.parts))
    newest = plain if plain in found else newest
    record = load_json(str(newest), "Record of the evaluation")
    missing = {"dataset", "panoptic_json", "panoptic_root"} - set(record if isinstance(record, dict) else ())
    if missing:
        raise ValueError(f"{newest} lacks {sorted(missing)}. Evaluate again, or name GT.json and PRED.json.")
    return {**record, "folder": str(newest.parent)}


def report_of_run(
    folder: str,
    output: str,
    *,
    images: str | None = None,
    budget: Budget | None = None,
    thresholds: str | None = None,
    errors: PanopticErrors | None = None,
) -> list[str]:
    """Write the report of the last evaluation in a folder, see :func:`.writer.write_report`; returns the paths.

    Args:
        folder: as of :func:`find_evaluation`.
        output: path of the HTML file.
        images: folder of the images, if not where the dataset has them.
        budget: how much the images may take.
        thresholds: ``thresholds.json`` to show, if not one in the folder.
        errors: of that evaluation, if they are known already.

    Raises:
        FileNotFoundError, ValueError: as of both.
    """
    record = find_evaluation(folder)
    thresholds = thresholds or _newest(folder, _THRESHOLDS)
    more: list[Section] = [] if thresholds is None else [thresholds_section(thresholds)]
    metrics = _metrics(record["folder"])
    return write_report(
        output,
        record["panoptic_json"],
        [os.path.join(record["folder"], "predictions.json")],
        images=_image_root(record, images),
        gt_folder=record["panoptic_root"],
        names=[_run_name(record["folder"])],
        title=f"{_run_name(record['folder'])} on {record['dataset']}",
        budget=budget,
        errors=[] if errors is None else [errors],
        more=[*more, *([] if metrics is None else training_section(metrics))],
        more_files=[path for path in (thresholds, metrics) if path is not None],
    )


def files_of_runs(folders: Sequence[str]) -> dict[str, Any]:
    """What :func:`.writer.write_report` needs to compare the last evaluations of runs.

    Args:
        folders: of each run, as of :func:`find_evaluation`.

    Returns:
        ``gt_json``, ``predictions``, ``images`` (None where the folder has gone) and ``gt_folder``.

    Raises:
        FileNotFoundError, ValueError: as of :func:`find_evaluation`; or the runs were evaluated on different datasets.
    """
    records = [find_evaluation(folder) for folder in folders]
    if len({os.path.realpath(record["panoptic_json"]) for record in records}) > 1:
        told = " and ".join(f"{record['folder']} on {record['panoptic_json']}" for record in records)
        raise ValueError(f"Runs that are compared are evaluated on one dataset, but {told}.")
    return {
        "gt_json": records[0]["panoptic_json"],
        "predictions": [os.path.join(record["folder"], "predictions.json") for record in records],
        "images": _image_root(records[0], None),
        "gt_folder": records[0]["panoptic_root"],
    }


def _image_root(record: Mapping[str, Any], images: str | None) -> str | None:
    """The folder that is named, or that of the dataset if it is still there."""
    image_root: str | None = images or record.get("image_root")
    return image_root if image_root is not None and (images or os.path.isdir(image_root)) else None


def _newest(folder: str, names: tuple[str, ...]) -> str | None:
    found = [path for name in names if (path := Path(folder, name)).is_file()]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None


def _metrics(folder: str) -> str | None:
    """``metrics.json`` of the training to which an evaluation belongs: in one of the folders above."""
    above = Path(folder).absolute()
    found = [str(parent / _METRICS) for parent in (above, *list(above.parents)[:2]) if (parent / _METRICS).is_file()]
    return found[0] if found else None


def _run_name(folder: str) -> str:
    parts = Path(folder).absolute().parts
    inner = [part for part in parts if part.startswith("inference")]
    outer = [part for part in parts if part not in inner]
    augmented = " with test-time augmentation" if any(part.endswith(_AUGMENTED) for part in inner) else ""
    return f"{outer[-1] if outer else 'model'}{augmented}"
