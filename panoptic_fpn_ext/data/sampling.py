"""Which training images are drawn, and how often."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler

from ..categories import PanopticCategories

__all__ = ["category_repeat_factors", "with_countable_things"]

logger = logging.getLogger(__name__)


def category_repeat_factors(
    dicts: Sequence[dict[str, Any]], categories: PanopticCategories | None, threshold: float, sqrt: bool = True
) -> torch.Tensor:
    """How often an image is drawn so that rare categories are seen more often (Gupta et al., LVIS, appendix B.2).

    As detectron2's `RepeatFactorTrainingSampler.repeat_factors_from_category_frequency`, which knows ``annotations``
    only; here the categories of an image are those of its segments, things and stuff, and of its annotations.

    Args:
        dicts: detectron2's standard dicts, panoptic or not.
        categories: of the dataset, for the names in the log; None where there are no panoptic ones.
        threshold: share of the images below which a category is repeated.
        sqrt: whether to take the square root of threshold ÷ share.

    Returns:
        float32 (len(dicts)), at least 1.
    """
    rows = [{"annotations": [{"category_id": c} for c in sorted(_categories_in(d, categories))]} for d in dicts]
    factors: torch.Tensor = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(rows, threshold, sqrt)
    return factors


def _categories_in(one: dict[str, Any], categories: PanopticCategories | None) -> set[str]:
    """Categories of an image: things and stuff may have the same id, so that a label says which it is."""
    found = {(a["category_id"], True) for a in one.get("annotations", ())}
    found |= {(s["category_id"], bool(s["isthing"])) for s in one.get("segments_info", ())}
    return {_label(id_, isthing, categories) for id_, isthing in found}


def _label(category_id: int, isthing: bool, categories: PanopticCategories | None) -> str:
    if categories is None:
        return f"{category_id} ({'thing' if isthing else 'stuff'})"
    dataset_id = categories.dataset_id(category_id, isthing)
    return f"{dataset_id} ({categories.name(dataset_id)})"


def with_countable_things(dicts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of panoptic dicts that have a thing which is no crowd."""
    return [d for d in dicts if any(s["isthing"] and not s.get("iscrowd", 0) for s in d["segments_info"])]
