"""What an exported file says of itself: classes, channel order, thresholds, versions, config."""

from collections.abc import Mapping
from typing import Any

import detectron2
import torch

from ..categories import PanopticCategories
from .graph import PanopticGraph

__all__ = ["Description", "categories_of", "dataset_ids", "describe"]

Description = dict[str, Any]
"""Values that JSON can hold, by name; each is a metadata entry of a file, as JSON."""

INPUT_FORMATS = ("BGR", "RGB")


def describe(graph: PanopticGraph, categories: PanopticCategories, input_format: str, config: str = "") -> Description:
    """Metadata of the file of a graph.

    Args:
        graph: what is exported.
        categories: those of the dataset that the model predicts.
        input_format: channel order of the image, "BGR" or "RGB".
        config: the model's config, as YAML.

    Returns:
        ``categories``: rows of a COCO panoptic JSON with colours, each with the ``category_id`` of the model;
        ``sem_seg_space`` of the model; ``input_format``; ``resize``: shortest and longest side, and ``resizes``:
        whether the file brings images to it; ``divisor`` of a network input's sides; ``outputs``; ``sem_seg_stride``;
        ``thresholds`` where no input says otherwise; ``mask_threshold``; ``versions``; ``config``.

    Raises:
        ValueError: another ``input_format``.
    """
    if input_format not in INPUT_FORMATS:
        raise ValueError(f"INPUT.FORMAT is {input_format!r}; a model can be exported whose images are BGR or RGB.")
    settings = graph.settings
    return {
        "categories": [{**row, "category_id": categories.category_id(row["id"])} for row in categories.rows],
        "sem_seg_space": categories.sem_seg_space,
        "input_format": input_format,
        "resize": list(graph.resize),
        "resizes": graph.resizes,
        "divisor": max(1, graph.model.backbone.size_divisibility),
        "outputs": sorted(graph.outputs),
        "sem_seg_stride": settings.sem_seg_stride,
        "thresholds": {
            "instance_score_threshold": settings.instance_score_threshold,
            "overlap_threshold": settings.overlap_threshold,
            "stuff_area_threshold": settings.stuff_area_threshold,
        },
        "mask_threshold": settings.mask_threshold,
        "versions": _versions(),
        "config": config,
    }


def _versions() -> Mapping[str, str]:
    from .. import __version__  # it is there once the package is imported

    return {"panoptic_fpn_ext": __version__, "detectron2": detectron2.__version__, "torch": torch.__version__}


def categories_of(description: Description) -> PanopticCategories:
    """The categories that :func:`describe` was given."""
    rows = [{key: row[key] for key in ("id", "name", "isthing", "color")} for row in description["categories"]]
    return PanopticCategories(rows, description["sem_seg_space"], as_listed=True)


def dataset_ids(categories: PanopticCategories) -> dict[tuple[int, bool], int]:
    """Dataset id by a segment's (category_id, isthing)."""
    ids = categories.dataset_ids
    return {(categories.category_id(i), categories.isthing(i)): i for i in ids}
