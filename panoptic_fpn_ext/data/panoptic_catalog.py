"""Panoptic datasets in detectron2's catalogs: what their metadata hold, and one name for one dataset."""

import copy
import logging
from collections.abc import Callable
from typing import Any, Final

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import log_first_n

from ..categories import PanopticCategories

__all__ = [
    "CITYSCAPES_PANOPTIC",
    "COCO_PANOPTIC",
    "adopt_categories",
    "class_metadata",
    "dataset_categories",
    "describe_panoptic",
    "is_panoptic",
    "listed_categories",
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


def listed_categories(name: str) -> PanopticCategories:
    """As :func:`dataset_categories`, but those that the dataset was registered with, whatever it has adopted since."""
    metadata = MetadataCatalog.get(name)
    return metadata.get("registered_categories") or PanopticCategories.from_metadata(metadata)


def adopt_categories(name: str, categories: PanopticCategories) -> bool:
    """Give a dataset the categories and id spaces of a model, so that the ids of both mean the same.

    Its metadata and the standard dicts that the catalog makes of it change; its files do not. Its own categories are
    still :func:`listed_categories`. Adopting these gives the dataset back as it was registered.

    Args:
        name: a registered panoptic dataset.
        categories: have all those of the dataset, with their names and kinds.

    Returns:
        Whether anything changed.

    Raises:
        ValueError: the dataset has semantic PNGs, whose ids cannot change.
    """
    if dataset_categories(name).same_ids(categories):
        return False
    metadata, own = MetadataCatalog.get(name), listed_categories(name)
    if metadata.get("sem_seg_root"):
        raise ValueError(
            f"Dataset {name!r} has semantic PNGs in {metadata.sem_seg_root}, whose ids are those of its own list of "
            "categories: make them of the same list as the model's."
        )
    metadata.__dict__.setdefault("registered_categories", own)  # not by `setattr`, which lets nothing change
    metadata.__dict__.update(categories.metadata(), ignore_label=categories.ignore_label)
    if name in DatasetCatalog:
        load = metadata.__dict__.setdefault("load_registered", DatasetCatalog[name])
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda: [_with_ids(d, own, categories) for d in load()])
    return True


def _with_ids(record: dict[str, Any], old: PanopticCategories, new: PanopticCategories) -> dict[str, Any]:
    """A standard dict with the ids of other spaces."""

    def renumbered(row: dict[str, Any], isthing: bool) -> dict[str, Any]:
        return {**row, "category_id": new.category_id(old.dataset_id(row["category_id"], isthing))}

    result = copy.copy(record)
    if "segments_info" in record:
        result["segments_info"] = [renumbered(s, s["isthing"]) for s in record["segments_info"]]
    if "annotations" in record:
        result["annotations"] = [renumbered(a, True) for a in record["annotations"]]
    return result


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
        if "registered_categories" in MetadataCatalog.get(name).as_dict():
            adopt_categories(name, listed_categories(name))
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
    known = MetadataCatalog.get(name)
    known.set(**{key: value for key, value in metadata.items() if key not in known.as_dict()})


def _check_same(name: str, entries: dict[str, Any]) -> None:
    """Refuse entries that differ from the catalog's of this name; a name that is only described may get more."""
    known = MetadataCatalog.get(name).as_dict()
    if "registered_categories" in known:
        own = known["registered_categories"]
        known |= {**own.metadata(), "ignore_label": own.ignore_label}
    absent = {} if name in DatasetCatalog else entries
    different = [key for key, value in entries.items() if known.get(key, absent.get(key)) != value]
    if different:
        raise ValueError(
            f"Dataset name {name!r} is taken by other data ({', '.join(different)} differ); choose another."
        )
