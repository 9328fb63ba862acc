"""Whose categories a model predicts. They travel with the model and its checkpoints and are compared with datasets."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog
from torch import nn

from ...categories import PanopticCategories, SemSegSpace
from ...category_comparison import refuse_different_categories
from ...data.panoptic_catalog import adopt_categories, is_panoptic, listed_categories

__all__ = [
    "RECORD",
    "CategorySource",
    "agree_on_categories",
    "categories_of_record",
    "category_record",
    "dataset_source",
    "model_source",
    "semantic_space",
    "set_model_source",
]

RECORD = "panoptic_categories"
"""The key of a checkpoint that has the categories: ``{"sem_seg_space": …, "categories": [{"id", "name", …}, …]}``."""

_TRAIN_REMEDY = (
    "Datasets that are trained on together need the same ids, names and kinds of categories (in any order; one may "
    "leave some out): mend the JSON files, or DATASETS.TRAIN."
)
_TEST_REMEDY = (
    "Give the JSON of the dataset the ids, names and kinds that the model was trained with (in any order; it may leave "
    "some out), or evaluate a model of the dataset's categories."
)

logger = logging.getLogger(__name__)


class CategorySource(NamedTuple):
    """Categories, and what has them: a checkpoint or a dataset, as messages call it."""

    categories: PanopticCategories
    name: str


def set_model_source(model: nn.Module, source: CategorySource | None) -> None:
    """Note whose categories a model predicts."""
    _unwrapped(model).category_source = source  # type: ignore[assignment]


def model_source(model: nn.Module) -> CategorySource | None:
    """What :func:`set_model_source` noted, None where nothing was."""
    source: CategorySource | None = getattr(_unwrapped(model), "category_source", None)
    return source


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def category_record(categories: PanopticCategories) -> dict[str, Any]:
    """What a checkpoint has under :data:`RECORD`: plain containers, the categories in the order of their ids."""
    return {"sem_seg_space": categories.sem_seg_space, "categories": categories.rows}


def categories_of_record(content: Mapping[str, Any], path: str) -> CategorySource | None:
    """The categories that a checkpoint records, None where it records none.

    Args:
        content: of the checkpoint.
        path: its name, for messages.

    Raises:
        ValueError: the record is not what :func:`category_record` makes.
    """
    record = content.get(RECORD)
    if record is None:
        return None
    try:
        categories = PanopticCategories(record["categories"], record["sem_seg_space"], as_listed=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Checkpoint {path}: what it has under {RECORD!r} are no categories ({error}).") from error
    return CategorySource(categories, f"checkpoint {path}")


def dataset_source(name: str) -> CategorySource:
    """Categories of a panoptic dataset as it lists them."""
    file = MetadataCatalog.get(name).get("panoptic_json")
    return CategorySource(listed_categories(name), f"dataset {name!r}" + (f" ({file})" if file else ""))


def semantic_space(known: CategorySource | None, wanted: SemSegSpace, key: str) -> SemSegSpace:
    """What the semantic head of a run tells apart: as the model does that there is already, else as the config says.

    Args:
        known: categories of that model, None for a new one.
        wanted: of the config.
        key: what the config calls it, for a line that says where the model differs.
    """
    if known is None or known.categories.sem_seg_space == wanted:
        return wanted
    own = known.categories.sem_seg_space
    logger.info(f"{key} is {wanted}; {known.name} has {own}, which holds")
    return own


def agree_on_categories(
    train: Sequence[str], test: Sequence[str], trained: CategorySource | None = None
) -> CategorySource | None:
    """Compare the categories of datasets with each other and with a model's, and let all use the same ids.

    A dataset that lists only some of the categories, or numbers them otherwise, adopts the others' ids: see
    :func:`~panoptic_fpn_ext.data.panoptic_catalog.adopt_categories`.

    Args:
        train, test: names of registered datasets; those that are not panoptic are left out.
        trained: categories of a trained model; by default those of the training dataset that lists most, or of the
            first test dataset where there is none.

    Returns:
        The categories that all use, None where nothing is panoptic.

    Raises:
        ValueError: categories that are not the model's, or an id with different names or kinds.
    """
    train, test = ([name for name in names if is_panoptic(name)] for names in (train, test))
    if train:
        most = max((dataset_source(name) for name in train), key=lambda source: len(source.categories))
        for name in train:
            _adopt(name, most, _TRAIN_REMEDY, "its images teach that there is none of these in them")
        trained = trained or most
    for name in test:
        trained = trained or dataset_source(name)
        _adopt(name, trained, _TEST_REMEDY, "it is evaluated as if it listed them")
    return trained


def _adopt(name: str, reference: CategorySource, remedy: str, consequence: str) -> None:
    source = dataset_source(name)
    if not reference.categories.num_stuff:  # of a detector, which knows nothing of stuff
        reference = _with_stuff(reference, source)
    left_out = refuse_different_categories(
        reference.categories.rows,
        reference.name,
        source.categories.rows,
        source.name,
        remedy=remedy,
        may_be_part=True,
    ).only_first
    if adopt_categories(name, reference.categories) and left_out:
        shown = ", ".join(f"{row['id']} {row['name']!r}" for row in left_out)
        logger.warning(f"{source.name[0].upper()}{source.name[1:]} does not list {shown}: {consequence}.")


def _with_stuff(things: CategorySource, dataset: CategorySource) -> CategorySource:
    """A detector's things with the stuff of a dataset."""
    stuff = [row for row in dataset.categories.rows if not row["isthing"]]
    taken = set(things.categories.dataset_ids)
    rows = [*things.categories.rows, *(row for row in stuff if row["id"] not in taken)]
    return CategorySource(PanopticCategories(rows, dataset.categories.sem_seg_space, as_listed=True), things.name)
