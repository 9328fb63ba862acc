"""Settings that empty the result without an error: one warning each, with the key and a value that would fit.

A check is a small function in a table. It looks at the config alone (`silent_keys.py`), at the categories of a dataset,
or at the segments of one, and yields what to say.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from detectron2.config import CfgNode

from ...categories import PanopticCategories
from ...data import dataset_categories
from ...data.panoptic_catalog import is_panoptic
from ...data.segment_statistics import SegmentStatistics, segment_statistics
from .box_fit import anchor_warnings, crop_warnings, scale_warnings
from .model_outputs import predicts
from .silent_keys import OF_PREDICTION, OF_TRAINING
from .yacs_view import renamed

__all__ = ["category_names", "warn_of_segments", "warn_of_settings"]

logger = logging.getLogger(__name__)

Warnings = Iterator[str]
Names = Mapping[str, str] | None


def warn_of_settings(
    cfg: CfgNode,
    dataset_names: Sequence[str],
    training: bool = False,
    names: Names = None,
    has_things: bool | None = None,
) -> None:
    """Warn of what the config alone, or with the categories of its datasets, shows; no file is read.

    Args:
        cfg: of the run.
        dataset_names: those whose categories are known.
        training: whether the run trains.
        names: of keys, where ``cfg`` is the view of a LazyConfig, see
            :mod:`~panoptic_fpn_ext.engine.settings.yacs_view`.
        has_things: whether the model predicts things, where that is known without a dataset.
    """
    if has_things is None:
        has_things = _have_things(dataset_names)
    checks = (*OF_PREDICTION, *(OF_TRAINING if training else ()))
    for check in checks:
        _say(check(cfg, has_things), cfg, check, names)
    for name in filter(is_panoptic, dataset_names):
        _say(_kinds(cfg, name, dataset_categories(name)), cfg, _kinds, names)


def warn_of_segments(
    cfg: CfgNode, name: str, dicts: Sequence[dict[str, Any]], training: bool = False, names: Names = None
) -> None:
    """Warn of settings that do not fit the segments of a panoptic dataset.

    Args:
        cfg: of the run.
        name: of the dataset.
        dicts: its standard dicts.
        training: whether the run trains on it.
        names: as :func:`warn_of_settings`.
    """
    statistics = segment_statistics(dicts)
    for check in (*_OF_SEGMENTS, *(_OF_TRAINED_SEGMENTS if training else ())):
        _say(check(cfg, name, statistics), cfg, check, names)


_said: set[tuple[str, str, str]] = set()
"""Config, check and beginning of what was said: once a run is enough, whatever the figures of its other datasets."""


def _say(warnings: Warnings, cfg: CfgNode, check: Callable[..., Warnings], names: Names) -> None:
    for warning in warnings:
        kind = str(cfg), check.__name__, warning.split(" ")[0]
        text = renamed(warning, names)
        if text is not None and kind not in _said:
            _said.add(kind)
            logger.warning(text)


def _have_things(dataset_names: Sequence[str]) -> bool:
    """False where all datasets are known to have none, whose thresholds are above all scores on purpose."""
    panoptic = [name for name in dataset_names if is_panoptic(name)]
    return not panoptic or any(dataset_categories(name).num_things for name in panoptic)


# -- categories -------------------------------------------------------------------------------------------------------


def _kinds(cfg: CfgNode, name: str, categories: PanopticCategories) -> Warnings:
    instances, semantics = predicts(cfg)
    if instances and not categories.num_things:
        yield (
            f"Dataset {name} has no thing: all {categories.num_stuff} categories have isthing 0 in its JSON, as "
            "datumaro and CVAT export it. Nothing is counted, and PQ_th and AP are not measured. Set isthing to 1 in "
            "the JSON for categories of countable objects."
        )
    if semantics and not categories.num_stuff:
        yield (
            f"Dataset {name} has no stuff: all {categories.num_things} categories have isthing 1 in its JSON. What is "
            "no instance becomes void, and PQ_st is not measured. Set isthing to 0 in the JSON for categories like sky "
            "or road."
        )


# -- segments ---------------------------------------------------------------------------------------------------------


def _stuff_area(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Warnings:
    limit, areas = cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT, statistics.stuff_areas
    if not all(predicts(cfg)) or not len(areas):
        return
    lost = areas < limit
    names = category_names(name, {(int(i), False) for i in _always_lost(statistics.stuff_ids, lost)})
    if lost.mean() > 0.5 or names:
        who = f" (all of {names})" if names else ""
        kept = areas[np.isin(statistics.stuff_ids, _always_lost(statistics.stuff_ids, lost))] if names else areas
        fits = 2 ** int(math.log2(max(1.0, float(np.percentile(kept if len(kept) else areas, 5)))))
        yield (
            f"MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT is {limit:g} px: {_percent(lost.mean())} of the stuff "
            f"segments of {name}{who} are smaller and become void. Set it to {min(fits, 4096)}."
        )


def _always_lost(ids: Any, lost: Any, at_least: int = 10) -> Any:
    """Categories that have some segments, all of them lost."""
    return np.array([i for i in np.unique(ids) if lost[ids == i].all() and (ids == i).sum() >= at_least], np.int64)


def _instances_of_an_image(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Warnings:
    counts = statistics.things_per_image
    if not predicts(cfg)[0] or not counts.sum():
        return
    limits = {"TEST.DETECTIONS_PER_IMAGE": cfg.TEST.DETECTIONS_PER_IMAGE}
    limits["MODEL.RPN.POST_NMS_TOPK_TEST"] = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    limits["MODEL.RPN.PRE_NMS_TOPK_TEST"] = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST * len(cfg.MODEL.RPN.IN_FEATURES)
    for key, limit in limits.items():
        lost = np.maximum(counts - max(limit, 0), 0).sum() / counts.sum()
        if lost > 0.1 and not (key == "TEST.DETECTIONS_PER_IMAGE" and limit < 0):  # for detectron2 no limit
            most = int(counts.max())
            fits = max(100, -(-most // 50) * 50) * (1 if key.startswith("TEST") else 4)
            yield (
                f"{key} allows {max(limit, 0)} instances an image, but images of {name} have up to {most} things: "
                f"{_percent(lost)} of them cannot be found. Set it to {fits}."
            )


def _absent_categories(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Warnings:
    if not is_panoptic(name):
        return
    categories = dataset_categories(name)
    every = _learnt(cfg, categories)
    absent, crowds = every - statistics.categories, (every & statistics.categories) - statistics.countable
    crowds = {one for one in crowds if one[1]}
    if absent:
        yield (
            f"{len(absent)} of {len(every)} categories of {name} have no segment in the training set: "
            f"{category_names(name, absent)}. They are never predicted: add images that show them, or take them out of "
            "it."
        )
    if crowds:
        yield (
            f"All segments of {category_names(name, crowds)} in {name} are crowds (iscrowd 1), of which no instance is "
            "learnt. Set iscrowd to 0 in the JSON for segments that are one object."
        )


def _learnt(cfg: CfgNode, categories: PanopticCategories) -> set[tuple[int, bool]]:
    """``(category_id, isthing)`` of the categories that the model's heads predict."""
    instances, semantics = predicts(cfg)
    pairs = {(categories.category_id(i), categories.isthing(i)) for i in categories.dataset_ids}
    return {one for one in pairs if (instances if one[1] else semantics)}


def category_names(dataset_name: str, pairs: Collection[tuple[int, bool]], most: int = 5) -> str:
    """Names of categories of a dataset, given as ``(category_id, isthing)``; the first few."""
    if not pairs or not is_panoptic(dataset_name):
        return ""
    categories = dataset_categories(dataset_name)
    names = sorted(categories.name(categories.dataset_id(*one)) for one in pairs)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


Check = Callable[[CfgNode, str, SegmentStatistics], Warnings]
_OF_SEGMENTS: Final[tuple[Check, ...]] = (_stuff_area, _instances_of_an_image)


def _boxes(cfg: CfgNode, name: str, statistics: SegmentStatistics) -> Warnings:
    if predicts(cfg)[0] and len(statistics.box_sizes):
        yield from anchor_warnings(cfg, name, statistics)
        yield from crop_warnings(cfg, name, statistics)
    yield from scale_warnings(cfg, name, statistics)


_OF_TRAINED_SEGMENTS: Final[tuple[Check, ...]] = (_absent_categories, _boxes)
