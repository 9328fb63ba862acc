"""What a LazyConfig says of its datasets and of the sizes of its heads."""

import logging

from omegaconf import DictConfig, ListConfig, OmegaConf

from ..structures import IGNORE_LABEL
from .checkpoints.model_categories import CategorySource
from .checks import first_source, head_sizes, refuse_misfits
from .settings.yacs_view import yacs_view

__all__ = ["DATASETS", "all_datasets", "check_lazy_head_sizes", "dataset_names", "fill_in_head_sizes"]

logger = logging.getLogger(__name__)

DATASETS = {split: f"dataloader.{split}.dataset.names" for split in ("train", "test")}
"""Keys that name the datasets, by split."""
# Where a config has what `checks` compares with a dataset.
_HEAD_SIZES = {
    "num_things": "model.roi_heads.num_classes",
    "num_sem_seg_classes": "model.sem_seg_head.num_classes",
    "thing_sem_seg_ids": "model.combiner.thing_sem_seg_ids",
    "ignore_label": "model.sem_seg_head.ignore_value",
}


def all_datasets(cfg: DictConfig) -> list[str]:
    """Names of the datasets of a config, those to train on first."""
    return [name for split in DATASETS for name in dataset_names(cfg, split)]


def dataset_names(cfg: DictConfig, split: str) -> list[str]:
    """Names of the datasets of ``dataloader.train`` or ``dataloader.test``."""
    names = OmegaConf.select(cfg, DATASETS[split], default=())
    return [names] if isinstance(names, str) else list(names)


def check_lazy_head_sizes(cfg: DictConfig, source: CategorySource) -> None:
    """Check the sizes of the heads that the model has; arguments and errors are those of
    :func:`~panoptic_fpn_ext.engine.checks.check_head_sizes`.
    """
    sizes = {what: (key, _value(cfg, key)) for what, key in _head_sizes(cfg).items()}
    if sizes["num_sem_seg_classes"][1] is not None and sizes["ignore_label"][1] is None:
        sizes["ignore_label"] = (_HEAD_SIZES["ignore_label"], IGNORE_LABEL)  # the head's default
    fits = head_sizes(source.categories)
    refuse_misfits({what: pair for what, pair in sizes.items() if what in fits and pair[1] is not None}, source)


def fill_in_head_sizes(cfg: DictConfig, source: CategorySource | None = None) -> None:
    """Take head sizes that are 0 from the categories that the model predicts; arguments and errors are those of
    :func:`~panoptic_fpn_ext.engine.checks.fill_in_num_classes`.
    """
    counts = {what: _HEAD_SIZES[what] for what in ("num_things", "num_sem_seg_classes")}
    if 0 not in (_value(cfg, key) for key in counts.values()):
        return
    source = source or first_source(all_datasets(cfg), *counts.values())
    fits = head_sizes(source.categories)
    if _value(cfg, _HEAD_SIZES["num_sem_seg_classes"]) == 0:  # before it is filled in
        OmegaConf.update(cfg, _HEAD_SIZES["thing_sem_seg_ids"], fits["thing_sem_seg_ids"])
        if fits["ignore_label"] != IGNORE_LABEL:
            OmegaConf.update(cfg, _HEAD_SIZES["ignore_label"], fits["ignore_label"], force_add=True)
    threshold = _head_sizes(cfg).get("score_threshold")
    if _value(cfg, _HEAD_SIZES["num_things"]) == 0 and threshold and "score_threshold" in fits:
        OmegaConf.update(cfg, threshold, fits["score_threshold"], force_add=True)
    for what, key in counts.items():
        if _value(cfg, key) == 0:
            OmegaConf.update(cfg, key, fits[what])
            logger.info(f"From {source.name}: {key} {fits[what]}.")


def _head_sizes(cfg: DictConfig) -> dict[str, str]:
    """``_HEAD_SIZES`` with the threshold of scores, which cascades have in their last stage."""
    threshold = yacs_view(cfg).names.get("MODEL.ROI_HEADS.SCORE_THRESH_TEST")
    return {**_HEAD_SIZES, "score_threshold": threshold} if threshold else _HEAD_SIZES


def _value(cfg: DictConfig, key: str) -> object:
    """Value of a key, None where the config has none."""
    value = OmegaConf.select(cfg, key, default=None)
    return list(value) if isinstance(value, ListConfig) else value
