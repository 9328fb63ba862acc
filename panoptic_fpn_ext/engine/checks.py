"""Does a config fit its data sets? What users stumble over most is found before anything is built."""

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..categories import PanopticCategories

__all__ = ["check_config", "fill_in_num_classes"]

logger = logging.getLogger(__name__)


def fill_in_num_classes(cfg: CfgNode) -> None:
    """Take head sizes that are 0 from the first training data set.

    Fills ``MODEL.ROI_HEADS.NUM_CLASSES``, ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` and, with the latter, ``COMBINE.THING_SEM_SEG_IDS``.
    """
    model = cfg.MODEL
    if model.ROI_HEADS.NUM_CLASSES != 0 and model.SEM_SEG_HEAD.NUM_CLASSES != 0:
        return
    categories = _categories(_panoptic_datasets(cfg)[0])
    if model.ROI_HEADS.NUM_CLASSES == 0:
        model.ROI_HEADS.NUM_CLASSES = categories.num_things
    if model.SEM_SEG_HEAD.NUM_CLASSES == 0:
        model.SEM_SEG_HEAD.NUM_CLASSES = categories.num_sem_seg_classes
        model.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS = tuple(categories.thing_sem_seg_ids)
    logger.info(
        f"From the data set: MODEL.ROI_HEADS.NUM_CLASSES {model.ROI_HEADS.NUM_CLASSES}, "
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {model.SEM_SEG_HEAD.NUM_CLASSES}."
    )


def check_config(cfg: CfgNode) -> None:
    """Check the sizes of the heads against every panoptic data set of a config.

    Raises:
        KeyError: a data set is not registered.
        ValueError: a wrong size; the message names the key and the value that fits.
    """
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if name not in DatasetCatalog:
            raise KeyError(
                f"Data set {name!r} (DATASETS.TRAIN or DATASETS.TEST) is not registered. Register it with "
                "panoptic_fpn_ext.data.register_coco_panoptic, or train_net.py --register NAME IMAGES PANOPTIC_PNGS PANOPTIC_JSON."
            )
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    for name in _panoptic_datasets(cfg):
        categories = _categories(name)
        wanted = {
            "MODEL.ROI_HEADS.NUM_CLASSES": (cfg.MODEL.ROI_HEADS.NUM_CLASSES, categories.num_things),
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES": (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, categories.num_sem_seg_classes),
            "MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS": (
                list(combine.get("THING_SEM_SEG_IDS", (0,))),
                categories.thing_sem_seg_ids,
            ),
        }
        wrong = [f"  {key} is {came}: set it to {fits}" for key, (came, fits) in wanted.items() if came != fits]
        if wrong:
            raise ValueError(
                f"The config does not fit data set {name!r} ({categories.num_things} things, {categories.num_stuff} stuff, semantic "
                f"space {categories.sem_seg_space!r}):\n" + "\n".join(wrong)
            )


def _panoptic_datasets(cfg: CfgNode) -> list[str]:
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    return [name for name in names if MetadataCatalog.get(name).get("evaluator_type") == "coco_panoptic_seg"]


def _categories(name: str) -> PanopticCategories:
    return PanopticCategories.from_metadata(MetadataCatalog.get(name))
