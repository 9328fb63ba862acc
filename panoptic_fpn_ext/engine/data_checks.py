"""Before a training: are the files of its datasets what their JSON says, and do its parts show the same categories, but
not the same images?

Errors end it, warnings are said.
"""

import filecmp
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..data.check import KINDS, check_sample
from ..data.panoptic_catalog import is_panoptic
from .settings.silent_settings import category_names
from .settings.yacs_view import renamed

__all__ = ["check_data"]

logger = logging.getLogger(__name__)

# A file that cannot be read is replaced while training, up to a bound, and said at once here.
_UNREADABLE = ("image missing", "image broken", "png missing", "png broken")
# What the mapper can leave out: DATASETS.ALLOW_ERRORS.
_ALLOWABLE = ("bgr", "id not listed", "no pixel", "area", "elsewhere")

_Categories = set[tuple[int, bool]]  # ``(category_id, isthing)``


def check_data(cfg: CfgNode, names: Mapping[str, str] | None = None) -> None:
    """Check ``DATASETS.CHECKED_IMAGES`` images of each panoptic dataset that a training uses.

    Warnings, unreadable files and what ``DATASETS.ALLOW_ERRORS`` allows are logged; so are categories that only the
    images to train on show, or only those to be evaluated on, and images that are in both parts.

    Args:
        cfg: of the training, with its ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        names: of keys, where ``cfg`` is the view of a LazyConfig, see
            :mod:`~panoptic_fpn_ext.engine.settings.yacs_view`.

    Raises:
        ValueError: errors; the message says what, where and what to do.
    """
    most, allow = cfg.DATASETS.get("CHECKED_IMAGES", 50), cfg.DATASETS.get("ALLOW_ERRORS", False)
    datasets = [name for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)) if is_panoptic(name)]
    errors = ""
    if comm.is_main_process() and most > 0:
        shown: dict[str, _Categories] = {}
        files: dict[str, list[str]] = {}
        found = []
        for name in datasets:
            dicts = DatasetCatalog.get(name)
            shown[name] = _shown(dicts)
            files[name] = [one["file_name"] for one in dicts]
            found.append(_check(name, dicts, most, allow, names))
        errors = "\n".join(filter(None, found))
        for name in cfg.DATASETS.TEST:
            train = [one for one in cfg.DATASETS.TRAIN if one in shown]
            _compare_shown(train, name, shown)
            if name in files and name not in train:
                _compare_files(train, name, files)
    errors = comm.all_gather(errors)[0]
    if errors:
        raise ValueError(errors)


def _compare_shown(train: Sequence[str], test: str, shown: Mapping[str, _Categories]) -> None:
    """One line with the categories that either the training datasets or the one to evaluate on has no segment of."""
    learnt: _Categories = set().union(*(shown[name] for name in train))
    measured = shown.get(test, set())
    if test in train or not learnt or not measured:
        return
    parts = {
        f"only in {', '.join(train)}, so not measured": category_names(test, learnt - measured),
        f"only in {test}, so not learnt": category_names(train[0], measured - learnt),
    }
    found = [f"{categories} {where}" for where, categories in parts.items() if categories]
    if found:
        logger.info(f"Data: segments of {'; of '.join(found)}")


def _compare_files(train: Sequence[str], test: str, files: Mapping[str, Sequence[str]]) -> None:
    """Warn of images to be evaluated on that are trained on too: the same files, or copies of the same name."""
    learnt = _by_name(path for name in train for path in files[name])
    both = [path for path in files[test] if any(_is_copy(path, one) for one in learnt.get(os.path.basename(path), ()))]
    if both:
        logger.warning(
            f"{len(both)} of the {len(files[test])} images of {test} are trained on too, as images of "
            f"{', '.join(train)}: {', '.join(both[:3])}{' …' if both[3:] else ''}. The results say how well the model "
            "knows them, not how well it does on new images. `python -m panoptic_fpn_ext.data.check … --against …` "
            "finds the images that two parts share."
        )


def _by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(os.path.basename(path), []).append(path)
    return found


def _is_copy(path: str, other: str) -> bool:
    try:
        return path == other or filecmp.cmp(path, other, shallow=False)
    except OSError:  # unreadable, which the check of the images says
        return False


def _shown(dicts: Sequence[dict[str, Any]]) -> _Categories:
    """Categories of the segments of a dataset that are no crowds."""
    rows = (row for one in dicts for row in one.get("segments_info", ()))
    return {(row["category_id"], bool(row["isthing"])) for row in rows if not row.get("iscrowd", 0)}


def _check(name: str, dicts: Sequence[dict[str, Any]], most: int, allow: bool, names: Mapping[str, str] | None) -> str:
    """What is so wrong with a dataset that it cannot be trained on, or nothing."""
    if not dicts or "segments_info" not in dicts[0]:
        return ""
    tolerated = (*_UNREADABLE, *(_ALLOWABLE if allow else ()))
    findings = check_sample(dicts, most)
    errors = findings.select(lambda kind: KINDS[kind].is_error and kind not in tolerated)
    others = findings.select(lambda kind: kind not in errors.counts)
    looked = f"{name}, {min(most, len(dicts))} of {len(dicts)} images checked"
    if others.counts:
        logger.warning(f"{looked}:\n{others.text()}")
    if not errors.counts:
        return ""
    metadata = MetadataCatalog.get(name)
    paths = [metadata.get(key, "…") for key in ("panoptic_json", "panoptic_root", "image_root")]
    lines = [f"{looked}:", errors.text(), f"For all of it: python -m panoptic_fpn_ext.data.check {' '.join(paths)}"]
    if set(errors.counts) <= set(_ALLOWABLE):
        lines.append(renamed("DATASETS.ALLOW_ERRORS True trains nevertheless: such pixels are void.", names) or "")
    return "\n".join(lines).rstrip()
