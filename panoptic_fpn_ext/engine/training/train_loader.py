"""detectron2's training loader for panoptic datasets, with all of its samplers."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler
from torch.utils.data import Sampler

from ...data import PanopticDatasetMapper, dataset_categories
from ...data.panoptic_catalog import is_panoptic
from ...data.sampling import category_repeat_factors, with_countable_things
from ...data.train_loader import TrainLoader
from ..settings.model_outputs import WITHOUT_ROI_HEADS
from ..settings.silent_settings import warn_of_segments

__all__ = ["build_train_loader"]

logger = logging.getLogger(__name__)

Dicts = list[dict[str, Any]]


def build_train_loader(cfg: CfgNode) -> Any:
    """A :class:`~panoptic_fpn_ext.data.train_loader.TrainLoader` with
    :class:`~panoptic_fpn_ext.data.PanopticDatasetMapper` where the first training dataset is panoptic, else with
    detectron2's mapper; ``DATALOADER.*`` mean what they mean to detectron2 for datasets with ``annotations``.

    Raises:
        ValueError: no training image is left, or a sampler that does not exist.
    """
    if not is_panoptic(cfg.DATASETS.TRAIN[0]):
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler" or cfg.MODEL.LOAD_PROPOSALS:
            return build_detection_train_loader(cfg)
        keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        dicts = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=filter_empty, min_keypoints=keypoints)
        return _loader(cfg, dicts, DatasetMapper(cfg, True), None)
    by_dataset = {name: _dicts(cfg, name) for name in cfg.DATASETS.TRAIN}
    dicts = [d for part in by_dataset.values() for d in part]
    if not dicts:
        raise ValueError(
            f"None of the images of {', '.join(cfg.DATASETS.TRAIN)} has a thing that is no crowd: set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS to False to train on them."
        )
    warn_of_segments(cfg, cfg.DATASETS.TRAIN[0], dicts, training=True)
    return _loader(cfg, dicts, PanopticDatasetMapper(cfg, is_train=True), _sampler_factory(cfg, by_dataset))


def _loader(cfg: CfgNode, dicts: Dicts, mapper: Any, sampler: Callable[[int], Sampler[int]] | None) -> TrainLoader:
    return TrainLoader(
        dicts,
        mapper,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        sampler=sampler,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        seed=None if cfg.SEED < 0 else cfg.SEED,
        max_unreadable=cfg.DATALOADER.get("MAX_UNREADABLE_IMAGES", 10),
    )


def _dicts(cfg: CfgNode, name: str) -> Dicts:
    """The images of a dataset, without those that ``DATALOADER.FILTER_EMPTY_ANNOTATIONS`` leaves out."""
    only_annotated = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    dicts: Dicts = get_detection_dataset_dicts([name], filter_empty=only_annotated)
    learns_things = cfg.MODEL.META_ARCHITECTURE not in WITHOUT_ROI_HEADS and dataset_categories(name).num_things > 0
    if not only_annotated or not learns_things or "segments_info" not in dicts[0] or "annotations" in dicts[0]:
        return dicts
    kept = with_countable_things(dicts)
    if len(kept) < len(dicts):
        logger.info(
            f"Removed {len(dicts) - len(kept)} of {len(dicts)} images of {name}, which have no thing that is no crowd. "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps them: they teach stuff."
        )
    return kept


def _sampler_factory(cfg: CfgNode, by_dataset: dict[str, Dicts]) -> Callable[[int], Sampler[int]] | None:
    """What makes the sampler that ``DATALOADER.SAMPLER_TRAIN`` names of a seed; None for detectron2's default."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    images = sum(len(dicts) for dicts in by_dataset.values())
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO", 1.0)
        if not 0 < ratio <= 1 or int(images * ratio) < 1:
            raise ValueError(
                f"DATALOADER.RANDOM_SUBSET_RATIO is {ratio}: of {images} training images it must leave at least one; "
                "set it above 0, to at most 1."
            )
        return lambda seed: RandomSubsetTrainingSampler(images, ratio, seed_shuffle=seed, seed_subset=seed)
    if name == "RepeatFactorTrainingSampler":
        dicts = [d for part in by_dataset.values() for d in part]
        factors = _category_factors(cfg, next(iter(by_dataset)), dicts)
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if name in ("WeightedTrainingSampler", "WeightedCategoryTrainingSampler"):
        by_category = name == "WeightedCategoryTrainingSampler"
        weights = _dataset_factors(cfg, by_dataset, by_category)
        return lambda seed: RepeatFactorTrainingSampler(weights, seed=seed)
    return None


def _category_factors(cfg: CfgNode, dataset_name: str, dicts: Dicts) -> torch.Tensor:
    loader = cfg.DATALOADER
    categories = dataset_categories(dataset_name)
    return category_repeat_factors(dicts, categories, loader.REPEAT_THRESHOLD, loader.REPEAT_SQRT)


def _dataset_factors(cfg: CfgNode, by_dataset: dict[str, Dicts], by_category: bool) -> torch.Tensor:
    """``DATASETS.TRAIN_REPEAT_FACTOR`` of each image, with ``by_category`` times that of its categories."""
    factors = {str(name): float(factor) for name, factor in cfg.DATASETS.get("TRAIN_REPEAT_FACTOR", ())}
    unknown = sorted(set(factors) - set(by_dataset))
    if unknown or any(factor <= 0 for factor in factors.values()):
        raise ValueError(
            f"DATASETS.TRAIN_REPEAT_FACTOR is {cfg.DATASETS.TRAIN_REPEAT_FACTOR}: it takes pairs of a dataset of "
            f"DATASETS.TRAIN ({', '.join(by_dataset)}) and a factor above 0."
        )
    parts = [torch.full((len(dicts),), factors.get(name, 1.0)) for name, dicts in by_dataset.items()]
    if by_category:
        rare = [_category_factors(cfg, name, dicts) for name, dicts in by_dataset.items()]
        parts = [part * factor for part, factor in zip(parts, rare, strict=True)]
    result = torch.cat(parts)
    return result / result.min() if by_category else result
