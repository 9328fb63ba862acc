"""Panoptic datasets in detectron2's catalogs: what their metadata hold, and one name for one dataset."""

import logging
from collections.abc import Callable
from typing import Any, Final

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import log_first_n

from ..categories import PanopticCategories

__all__ = [
    "CITYSCAPES_PANOPTIC",
    "COCO_PANOPTIC",
    "class_metadata",
    "dataset_categories",
    "describe_panoptic",
    "is_panoptic",
    "register_panoptic",
]

COCO_PANOPTIC: Final = "coco_panoptic_seg"
CITYSCAPES_PANOPTIC: Final = "cityscapes_panoptic_seg"
"""The ``evaluator_type`` of panoptic datasets, by what measures them; detectron2's names."""


def is_panoptic(name: str) -> bool:
    """Whether a dataset of this name is known to be panoptic, ours or detectron2's."""
    return MetadataCatalog.get(name).get("evaluator_type") in (COCO_PANOPTIC, CITYSCAPES_PANOPTIC)


def dataset_categories(name: str) -> PanopticCategories:
    """Categories and id spaces of a registered panoptic dataset; for configs, which can only name datasets.

    Raises:
        ValueError: its metadata are not those of a panoptic dataset.
    """
    return PanopticCategories.from_metadata(MetadataCatalog.get(name))


def class_metadata(categories: PanopticCategories, evaluator_type: str) -> dict[str, Any]:
    """Metadata of the classes; ``evaluator_type`` is one of the two above."""
    entries = {**categories.metadata(), "evaluator_type": evaluator_type}
    return {**entries, "ignore_label": categories.ignore_label, "label_divisor": 1000}


def register_panoptic(name: str, load: Callable[[], list[dict[str, Any]]], metadata: dict[str, Any]) -> None:
    """Register a dataset. Again with the same metadata it is harmless.

    Args:
        name: what ``DATASETS.TRAIN`` and ``DATASETS.TEST`` call it.
        load: makes detectron2's standard dicts; what the catalog calls.
        metadata: of :func:`class_metadata`, and where the files are.

    Raises:
        ValueError: the name stands for other data already.
    """
    _check_same(name, metadata)
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: _counted(name, load()))
        MetadataCatalog.get(name).set(**metadata)


def _counted(name: str, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    num_segments = sum(len(d["segments_info"]) for d in dicts)
    said = f"Data: {name} has {len(dicts)} images with {num_segments} segments"
    log_first_n(logging.INFO, said, name=__name__, key="message")  # evaluators read it again
    return dicts


def describe_panoptic(name: str, metadata: dict[str, Any]) -> None:
    """Make the classes of a dataset known without its files; arguments and errors as :func:`register_panoptic`."""
    _check_same(name, metadata)
    MetadataCatalog.get(name).set(**metadata)


def _check_same(name: str, entries: dict[str, Any]) -> None:
    """Refuse entries that differ from the catalog's of this name; a name that is only described may get more."""
    known = MetadataCatalog.get(name)
    absent = {} if name in DatasetCatalog else entries
    different = [key for key, value in entries.items() if getattr(known, key, absent.get(key)) != value]
    if different:
        raise ValueError(
            f"Dataset name {name!r} is taken by other data ({', '.join(different)} differ); choose another."
        )
