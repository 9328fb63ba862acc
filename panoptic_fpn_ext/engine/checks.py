"""Does a config fit its datasets? What users stumble over most is found before anything is built."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..categories import PanopticCategories
from ..category_comparison import refuse_different_categories
from ..data import image_channels
from ..data.panoptic_catalog import is_panoptic
from .checkpoints.model_categories import CategorySource, agree_on_categories, dataset_source
from .settings.model_outputs import WITHOUT_ROI_HEADS, WITHOUT_SEM_SEG_HEAD
from .settings.yacs_view import renamed

__all__ = [
    "HOW_TO_REGISTER",
    "check_config",
    "check_head_sizes",
    "check_input_format",
    "check_registered",
    "fill_in_num_classes",
    "first_source",
    "head_sizes",
    "prediction_dataset",
    "prediction_source",
    "refuse_misfits",
]

logger = logging.getLogger(__name__)

HOW_TO_REGISTER = (
    "Register it with panoptic_fpn_ext.data.register_coco_panoptic, or on the command line with --register NAME "
    "IMAGE_ROOT PANOPTIC_ROOT PANOPTIC_JSON. A --data whose description has --split 0.8/0.2, or two --data, make "
    "user_train and user_val."
)


def fill_in_num_classes(cfg: CfgNode, source: CategorySource | None = None) -> None:
    """Take head sizes that are 0 from the categories that the model predicts.

    Fills ``MODEL.ROI_HEADS.NUM_CLASSES``, ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` and, with the latter,
    ``COMBINE.THING_SEM_SEG_IDS`` and, where 255 is a class, ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE``. Without things, which
    box heads cannot do without, they get one class that is never detected.

    Args:
        cfg: is changed.
        source: of the categories; by default the first panoptic dataset of ``DATASETS.TRAIN`` and ``DATASETS.TEST``.

    Raises:
        KeyError: a size is 0 and no categories are known to take it from.
    """
    model = cfg.MODEL
    if model.ROI_HEADS.NUM_CLASSES != 0 and model.SEM_SEG_HEAD.NUM_CLASSES != 0:
        return
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    source = source or first_source(names, "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    fits, taken = head_sizes(source.categories), []
    if model.ROI_HEADS.NUM_CLASSES == 0:
        model.ROI_HEADS.NUM_CLASSES = fits["num_things"]
        taken.append(f"MODEL.ROI_HEADS.NUM_CLASSES {fits['num_things']}")
        model.ROI_HEADS.SCORE_THRESH_TEST = fits.get("score_threshold", model.ROI_HEADS.SCORE_THRESH_TEST)
    if model.SEM_SEG_HEAD.NUM_CLASSES == 0:
        model.SEM_SEG_HEAD.NUM_CLASSES = fits["num_sem_seg_classes"]
        taken.append(f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {fits['num_sem_seg_classes']}")
        model.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS = tuple(fits["thing_sem_seg_ids"])
        if 0 <= model.SEM_SEG_HEAD.IGNORE_VALUE < fits["num_sem_seg_classes"]:
            model.SEM_SEG_HEAD.IGNORE_VALUE = fits["ignore_label"]
    logger.info(f"From {source.name}: {', '.join(taken)}.")


def first_source(names: Sequence[str], *keys: str) -> CategorySource:
    """The categories of the first panoptic one of a config's datasets; ``keys`` of the config are 0 without them.

    Raises:
        KeyError: there is none.
    """
    for name in names:
        if is_panoptic(name):
            return dataset_source(name)
    raise KeyError(
        f"{' or '.join(keys)} is 0, to be taken from the first of the config's datasets, but none of these is "
        f"registered as a panoptic one: {', '.join(names) or 'none'}. {HOW_TO_REGISTER}"
    )


def check_config(
    cfg: CfgNode, trained: CategorySource | None = None, *, training: bool = True
) -> CategorySource | None:
    """Compare the categories of all panoptic datasets of a config, and the sizes of the heads with them.

    Args:
        cfg: of a training or, with ``trained``, of an evaluation, of which ``DATASETS.TRAIN`` does not matter.
        trained: the categories of the model to evaluate.
        training: ``DATASETS.TRAIN`` is needed; else those of it that are not registered do not matter either.

    Returns:
        The categories that the model predicts, None where nothing is panoptic.

    Raises:
        KeyError: a dataset is not registered.
        ValueError: categories that differ, see
            :func:`~panoptic_fpn_ext.engine.checkpoints.model_categories.agree_on_categories`, or a wrong size; the
            message names the key and the value that fits.
    """
    check_input_format(cfg)
    train = () if trained else [name for name in cfg.DATASETS.TRAIN if training or name in DatasetCatalog]
    check_registered((*train, *cfg.DATASETS.TEST), "DATASETS.TRAIN or DATASETS.TEST")
    source = agree_on_categories(train, cfg.DATASETS.TEST, trained)
    if source is not None:
        check_head_sizes(cfg, source)
    return source


def check_registered(names: Iterable[str], keys: str) -> None:
    """``KeyError`` for a dataset that is not registered; ``keys`` are those of the config that name it."""
    for name in names:
        if name not in DatasetCatalog:
            raise KeyError(f"Dataset {name!r} ({keys}) is not registered. {HOW_TO_REGISTER}")


def check_input_format(cfg: CfgNode, names: Mapping[str, str] | None = None) -> None:
    """``ValueError`` for an ``INPUT.FORMAT`` that cannot be read, or that has other channels than ``MODEL.PIXEL_MEAN``
    and ``PIXEL_STD``; ``names`` as in :func:`~panoptic_fpn_ext.engine.settings.options.check_options`.
    """
    channels = image_channels(cfg.INPUT.FORMAT)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = cfg.MODEL[key]
        message = (
            f"INPUT.FORMAT {cfg.INPUT.FORMAT!r} has {channels} channels, but MODEL.{key} has {len(values)} values: "
            f"{list(values)}. Set MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to {channels} values each."
        )
        if len(values) != channels and (text := renamed(message, names)) is not None:
            raise ValueError(text)


def prediction_dataset(cfg: CfgNode) -> str:
    """Name of the dataset whose classes a model predicts: the first of ``DATASETS.TEST``, else of ``DATASETS.TRAIN``.

    Raises:
        ValueError: the config names no dataset.
        KeyError: its categories are not known.
    """
    names = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
    if not names:
        raise ValueError("DATASETS.TEST is empty: set it to the dataset whose classes the model predicts.")
    if not hasattr(MetadataCatalog.get(names[0]), "thing_classes"):
        raise KeyError(
            f"The categories of dataset {names[0]!r} (DATASETS.TEST) are not known, and MODEL.WEIGHTS records none. "
            f"{HOW_TO_REGISTER}"
        )
    return str(names[0])


def prediction_source(cfg: CfgNode, recorded: CategorySource | None) -> CategorySource | None:
    """The categories that a model predicts: what its checkpoint records, else those of :func:`prediction_dataset`.

    Args:
        cfg: names the datasets, which need not be known where the checkpoint has categories.
        recorded: the checkpoint's.

    Returns:
        None where the dataset is not panoptic.

    Raises:
        ValueError, KeyError: as :func:`prediction_dataset`; also if checkpoint and dataset both have categories that
            differ.
    """
    if recorded is None:
        name = prediction_dataset(cfg)
        return dataset_source(name) if is_panoptic(name) else None
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[:1]:
        if is_panoptic(name):
            dataset = dataset_source(name)
            refuse_different_categories(
                recorded.categories.rows,
                recorded.name,
                dataset.categories.rows,
                dataset.name,
                remedy="The model predicts what its checkpoint records: set DATASETS.TEST to (), or to a dataset of "
                "these categories.",
                may_be_part=True,
                may_have_more=not recorded.categories.num_stuff,  # of a detector
            )
    return recorded


def check_head_sizes(cfg: CfgNode, source: CategorySource) -> None:
    """Check the sizes of the heads against the categories that the model predicts.

    Raises:
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    sizes: dict[str, tuple[str, Any]] = {}
    if cfg.MODEL.META_ARCHITECTURE not in WITHOUT_ROI_HEADS:
        sizes["num_things"] = ("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        if "score_threshold" in head_sizes(source.categories):
            sizes["score_threshold"] = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
    if cfg.MODEL.META_ARCHITECTURE not in WITHOUT_SEM_SEG_HEAD:
        sizes["num_sem_seg_classes"] = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        thing_sem_seg_ids = list(cfg.MODEL.PANOPTIC_FPN.COMBINE.get("THING_SEM_SEG_IDS", (0,)))
        sizes["thing_sem_seg_ids"] = ("MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS", thing_sem_seg_ids)
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        if 0 <= ignored < source.categories.num_sem_seg_classes:  # what is ignored is never learnt
            sizes["ignore_label"] = ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignored)
    refuse_misfits(sizes, source)


def head_sizes(categories: PanopticCategories) -> dict[str, Any]:
    """What categories ask of a model: ``num_things``, ``num_sem_seg_classes``, ``thing_sem_seg_ids`` and
    ``ignore_label``.

    Without things, which box heads cannot do without, they get one class, and the ``score_threshold`` that none passes.
    """
    sizes: dict[str, Any] = {
        "num_things": max(categories.num_things, 1),
        "num_sem_seg_classes": categories.num_sem_seg_classes,
        "thing_sem_seg_ids": categories.thing_sem_seg_ids,
        "ignore_label": categories.ignore_label,
    }
    return sizes if categories.num_things else {**sizes, "score_threshold": 1.0}


def refuse_misfits(sizes: dict[str, tuple[str, Any]], source: CategorySource) -> None:
    """Compare a config with the categories that its model predicts.

    Args:
        sizes: those of the keys of :func:`head_sizes` that matter to the model, each with what the config calls it and
            its value there.
        source: the categories.

    Raises:
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    categories = source.categories
    fits = head_sizes(categories)
    wrong = [f"  {key} is {came}: set it to {fits[what]}" for what, (key, came) in sizes.items() if came != fits[what]]
    if wrong:
        raise ValueError(
            f"The config does not fit {source.name} ({categories.num_things} things, {categories.num_stuff} stuff, "
            f"semantic space {categories.sem_seg_space!r}):\n" + "\n".join(wrong)
        )
