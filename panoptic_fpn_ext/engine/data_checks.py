"""Before a training: are the files of its datasets what their JSON says? Errors end it, warnings are said."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from ..data.check import KINDS, check_sample
from ..data.panoptic_catalog import is_panoptic
from .yacs_view import renamed

__all__ = ["check_data"]

logger = logging.getLogger(__name__)

# A file that cannot be read is replaced while training, up to a bound, and said at once here.
_UNREADABLE = ("image missing", "image broken", "png missing", "png broken")
# What the mapper can leave out: DATASETS.ALLOW_ERRORS.
_ALLOWABLE = ("bgr", "id not listed", "no pixel", "area", "elsewhere")


def check_data(cfg: CfgNode, names: Mapping[str, str] | None = None) -> None:
    """Check ``DATASETS.CHECKED_IMAGES`` images of each panoptic dataset that a training uses.

    Warnings, unreadable files and what ``DATASETS.ALLOW_ERRORS`` allows are logged.

    Args:
        cfg: of the training, with its ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        names: of keys, where ``cfg`` is the view of a LazyConfig, see :mod:`~panoptic_fpn_ext.engine.yacs_view`.

    Raises:
        ValueError: errors; the message says what, where and what to do.
    """
    most, allow = cfg.DATASETS.get("CHECKED_IMAGES", 50), cfg.DATASETS.get("ALLOW_ERRORS", False)
    datasets = [name for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)) if is_panoptic(name)]
    errors = ""
    if comm.is_main_process() and most > 0:
        errors = "\n".join(filter(None, (_check(name, most, allow, names) for name in datasets)))
    errors = comm.all_gather(errors)[0]
    if errors:
        raise ValueError(errors)


def _check(name: str, most: int, allow: bool, names: Mapping[str, str] | None) -> str:
    """What is so wrong with a dataset that it cannot be trained on, or nothing."""
    dicts: Sequence[dict[str, Any]] = DatasetCatalog.get(name)
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
