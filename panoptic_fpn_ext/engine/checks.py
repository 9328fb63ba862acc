"""Does a config fit its datasets? What users stumble over most is found before anything is built."""

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data import dataset_categories, image_channels
from ..data.panoptic_catalog import is_panoptic
from .model_outputs import WITHOUT_ROI_HEADS, WITHOUT_SEM_SEG_HEAD

__all__ = [
    "HOW_TO_REGISTER",
    "check_config",
    "check_head_sizes",
    "check_input_format",
    "dataset_head_sizes",
    "fill_in_num_classes",
    "prediction_dataset",
    "refuse_misfits",
]

logger = logging.getLogger(__name__)

HOW_TO_REGISTER = (
    "Register it with panoptic_fpn_ext.data.register_coco_panoptic, or on the command line with --register NAME "
    "IMAGE_ROOT PANOPTIC_ROOT PANOPTIC_JSON."
)


def fill_in_num_classes(cfg: CfgNode) -> None:
    """Take head sizes that are 0 from the first training dataset.

    Fills ``MODEL.ROI_HEADS.NUM_CLASSES``, ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` and, with the latter,
    ``COMBINE.THING_SEM_SEG_IDS`` and, where 255 is a class, ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE``. Without things, which
    box heads cannot do without, they get one class that is never detected.

    Raises:
        KeyError: a size is 0 and no dataset is known to take it from.
    """
    model = cfg.MODEL
    if model.ROI_HEADS.NUM_CLASSES != 0 and model.SEM_SEG_HEAD.NUM_CLASSES != 0:
        return
    names = _panoptic_datasets(cfg)
    if not names:
        wanted = ", ".join((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)) or "none"
        raise KeyError(
            "MODEL.ROI_HEADS.NUM_CLASSES or MODEL.SEM_SEG_HEAD.NUM_CLASSES is 0, to be taken from the first dataset "
            "of DATASETS.TRAIN or DATASETS.TEST, but none of these is registered as a panoptic one: "
            f"{wanted}. {HOW_TO_REGISTER}"
        )
    fits = dataset_head_sizes(names[0])
    if model.ROI_HEADS.NUM_CLASSES == 0:
        model.ROI_HEADS.NUM_CLASSES = fits["num_things"]
        model.ROI_HEADS.SCORE_THRESH_TEST = fits.get("score_threshold", model.ROI_HEADS.SCORE_THRESH_TEST)
    if model.SEM_SEG_HEAD.NUM_CLASSES == 0:
        model.SEM_SEG_HEAD.NUM_CLASSES = fits["num_sem_seg_classes"]
        model.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS = tuple(fits["thing_sem_seg_ids"])
        if 0 <= model.SEM_SEG_HEAD.IGNORE_VALUE < fits["num_sem_seg_classes"]:
            model.SEM_SEG_HEAD.IGNORE_VALUE = fits["ignore_label"]
    logger.debug(
        f"From the dataset: MODEL.ROI_HEADS.NUM_CLASSES {model.ROI_HEADS.NUM_CLASSES}, "
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {model.SEM_SEG_HEAD.NUM_CLASSES}."
    )


def check_config(cfg: CfgNode) -> None:
    """Check the sizes of the heads against every panoptic dataset of a config.

    Raises:
        KeyError: a dataset is not registered.
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    check_input_format(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in DatasetCatalog:
            raise KeyError(f"Dataset {name!r} (DATASETS.TRAIN or DATASETS.TEST) is not registered. {HOW_TO_REGISTER}")
    for name in _panoptic_datasets(cfg):
        check_head_sizes(cfg, name)


def check_input_format(cfg: CfgNode) -> None:
    """``ValueError`` for an ``INPUT.FORMAT`` that cannot be read, or that has other channels than ``MODEL.PIXEL_MEAN``
    and ``PIXEL_STD``.
    """
    channels = image_channels(cfg.INPUT.FORMAT)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = cfg.MODEL[key]
        if len(values) != channels:
            raise ValueError(
                f"INPUT.FORMAT {cfg.INPUT.FORMAT!r} has {channels} channels, but MODEL.{key} has {len(values)} values: "
                f"{list(values)}. Set MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to {channels} values each."
            )


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
        raise KeyError(f"The categories of dataset {names[0]!r} (DATASETS.TEST) are not known. {HOW_TO_REGISTER}")
    return str(names[0])


def check_head_sizes(cfg: CfgNode, name: str) -> None:
    """Check the sizes of the heads against one panoptic dataset, of which only the metadata are needed.

    Raises:
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    sizes: dict[str, tuple[str, Any]] = {}
    if cfg.MODEL.META_ARCHITECTURE not in WITHOUT_ROI_HEADS:
        sizes["num_things"] = ("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        if "score_threshold" in dataset_head_sizes(name):
            sizes["score_threshold"] = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
    if cfg.MODEL.META_ARCHITECTURE not in WITHOUT_SEM_SEG_HEAD:
        sizes["num_sem_seg_classes"] = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        thing_sem_seg_ids = list(cfg.MODEL.PANOPTIC_FPN.COMBINE.get("THING_SEM_SEG_IDS", (0,)))
        sizes["thing_sem_seg_ids"] = ("MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS", thing_sem_seg_ids)
        ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        if 0 <= ignored < dataset_head_sizes(name)["num_sem_seg_classes"]:  # what is ignored is never learnt
            sizes["ignore_label"] = ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignored)
    refuse_misfits(sizes, name)


def dataset_head_sizes(name: str) -> dict[str, Any]:
    """What a panoptic dataset asks of a model: ``num_things``, ``num_sem_seg_classes``, ``thing_sem_seg_ids`` and
    ``ignore_label``.

    Without things, which box heads cannot do without, they get one class, and the ``score_threshold`` that none passes.
    """
    categories = dataset_categories(name)
    sizes: dict[str, Any] = {
        "num_things": max(categories.num_things, 1),
        "num_sem_seg_classes": categories.num_sem_seg_classes,
        "thing_sem_seg_ids": categories.thing_sem_seg_ids,
        "ignore_label": categories.ignore_label,
    }
    return sizes if categories.num_things else {**sizes, "score_threshold": 1.0}


def refuse_misfits(sizes: dict[str, tuple[str, Any]], name: str) -> None:
    """Compare a config with a panoptic dataset.

    Args:
        sizes: those of the keys of :func:`dataset_head_sizes` that matter to the model, each with what the config
            calls it and its value there.
        name: the dataset.

    Raises:
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    fits, categories = dataset_head_sizes(name), dataset_categories(name)
    wrong = [f"  {key} is {came}: set it to {fits[what]}" for what, (key, came) in sizes.items() if came != fits[what]]
    if wrong:
        raise ValueError(
            f"The config does not fit dataset {name!r} ({categories.num_things} things, {categories.num_stuff} stuff, "
            f"semantic space {categories.sem_seg_space!r}):\n" + "\n".join(wrong)
        )


def _panoptic_datasets(cfg: CfgNode) -> list[str]:
    return [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if is_panoptic(name)]
