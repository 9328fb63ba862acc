"""``--overfit N``: learn N images by heart. What cannot be has a fault in the data, the config or the code."""

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from detectron2.config import CfgNode, LazyCall
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig

from ..coco_json import image_key, read_panoptic
from ..command import whole
from ..data import dataset_categories, register_coco_panoptic
from .lazy_training import train_lazily
from .lazy_values import dataset_names
from .runs import write_whole
from .settings.model_outputs import model_outputs
from .settings.yacs_view import yacs_view
from .trainer import Trainer
from .training.interruption import StopOnSignal
from .training.learnt_classes import AllLearnt, StopWhenLearnt, is_learnt, verdict

__all__ = ["NOT_LEARNT", "add_overfit_argument", "overfit", "overfit_lazily", "prepare_overfit"]

logger = logging.getLogger(__name__)

NOT_LEARNT: Final = 1
"""Exit status where a class was not learnt."""

_ROUNDS = 10  # evaluations on the way
# Before the user's options: nothing is drawn at random, nothing is held back, and the rate does not fall.
_OPTIONS: Final = (
    *("INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none", "INPUT.COLOR_AUG_SSD", "False"),
    *("SOLVER.MAX_ITER", "600", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "()"),
    *("SOLVER.WARMUP_ITERS", "30", "TEST.PANOPTIC_EVALUATOR", "PanopticQualityEvaluator"),
    *("SOLVER.WEIGHT_DECAY", "0.0", "MODEL.PANOPTIC_FPN.OUTPUTS", "['panoptic_seg']"),
)


_LAZY_OPTIONS: Final = ("train.max_iter=600", "optimizer.weight_decay=0.0")


def add_overfit_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--overfit N`` to a parser."""
    parser.add_argument(
        "--overfit",
        type=whole(1),
        metavar="N",
        help="is the pipeline sound? Train on N images of the training set until they are learnt, for at most "
        "SOLVER.MAX_ITER iterations (600; of LazyConfigs train.max_iter), and say which class is not. Exit status 1 if "
        "one is not. Written to OUTPUT_DIR/overfit.",
    )


def prepare_overfit(args: argparse.Namespace, *, lazy: bool = False) -> None:
    """Options of ``args.overfit`` for ``setup``, or for ``setup_lazy``; those of the command line still go before them.

    Raises:
        ValueError: fewer images than one, or other options that say not to train afresh.
    """
    if args.overfit < 1 or args.eval_only or args.resume:
        raise ValueError("--overfit N needs at least one image, and goes without --eval-only and --resume.")
    args.opts = [*(_LAZY_OPTIONS if lazy else _OPTIONS), *args.opts]


def overfit(cfg: CfgNode, num_images: int) -> bool:
    """Train on a few images until each of their classes has PQ 50 on them.

    Args:
        cfg: of ``setup`` after :func:`prepare_overfit`.
        num_images: from ``DATASETS.TRAIN[0]``, those that together show most classes; all if it has fewer.

    Returns:
        Whether all classes were learnt in ``SOLVER.MAX_ITER`` iterations.

    Raises:
        ValueError: the dataset is not in COCO panoptic format, or the model makes no panoptic maps.
    """
    _refuse_without_maps(cfg, f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (_register(cfg.DATASETS.TRAIN[0], num_images, cfg.OUTPUT_DIR),)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (cfg.INPUT.MIN_SIZE_TEST,), cfg.INPUT.MAX_SIZE_TEST
    period = cfg.TEST.EVAL_PERIOD = -(-cfg.SOLVER.MAX_ITER // _ROUNDS)
    cfg.TEST.EXPECTED_RESULTS = []
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.SOLVER.MAX_ITER
    trainer = _Trainer(cfg)
    trainer.resume_or_load(resume=False)
    watch = StopWhenLearnt(cfg.OUTPUT_DIR, period)
    trainer.register_hooks([watch])
    return _learns(trainer.train, watch, cfg.SOLVER.MAX_ITER)


def overfit_lazily(cfg: DictConfig, num_images: int) -> bool:
    """:func:`overfit` of what a LazyConfig describes: of ``setup_lazy`` after :func:`prepare_overfit`, not changed."""
    _refuse_without_maps(yacs_view(cfg).cfg, "the config's model")
    cfg = cfg.copy()
    folder, most = cfg.train.output_dir, cfg.train.max_iter
    name = _register(dataset_names(cfg, "train")[0], num_images, folder)
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = name
    cfg.dataloader.train.mapper.augmentations = cfg.dataloader.test.mapper.augmentations
    if "scheduler" in cfg.lr_multiplier:
        cfg.lr_multiplier.scheduler = LazyCall(MultiStepParamScheduler)(values=[1.0], milestones=[], num_updates=1)
    if "outputs" in cfg.model:
        cfg.model.outputs = ["panoptic_seg"]
    cfg.train.eval_period, cfg.train.checkpointer.period = -(-most // _ROUNDS), most
    watch = StopWhenLearnt(folder, cfg.train.eval_period)
    return _learns(lambda: train_lazily(cfg, watch=watch), watch, most)


def _refuse_without_maps(cfg: CfgNode, what: str) -> None:
    if "panoptic_seg" not in model_outputs(cfg):
        raise ValueError(f"--overfit measures PQ, but {what} makes no panoptic maps.")


class _Trainer(Trainer):
    """Ends at once on a signal: there is nothing to go on with."""

    def build_hooks(self) -> list[HookBase | None]:
        return [hook for hook in super().build_hooks() if not isinstance(hook, StopOnSignal)]


def _learns(train: Callable[[], Any], watch: StopWhenLearnt, most: int) -> bool:
    """Train, say what was learnt, and whether it is all."""
    evaluation = logging.getLogger("panoptic_fpn_ext.evaluation")
    level = evaluation.level
    evaluation.setLevel(logging.WARNING)  # one table, at the end
    try:
        train()
        watch.read(most)
    except AllLearnt:
        pass
    finally:
        evaluation.setLevel(level)
    if comm.is_main_process():
        logger.info(verdict(watch.history))
    return all(map(is_learnt, watch.history[max(watch.history)]))


def _register(name: str, num_images: int, folder: str) -> str:
    """A dataset of some images of another one, whose JSON lies in ``folder``."""
    metadata = MetadataCatalog.get(name)
    if not all(hasattr(metadata, key) for key in ("image_root", "panoptic_root", "panoptic_json")):
        raise ValueError(f"--overfit needs a dataset in COCO panoptic format, {name} is none.")
    path = os.path.join(folder, "panoptic.json")
    if comm.is_main_process():
        chosen = _choose(DatasetCatalog.get(name), num_images)
        content = read_panoptic(metadata.panoptic_json)
        for key, id_ in (("images", "id"), ("annotations", "image_id")):
            content[key] = [row for row in content[key] if image_key(row[id_]) in chosen]
        write_whole(path, json.dumps(content, ensure_ascii=False))
        logger.info(f"Overfit: {len(chosen)} images of {name}, listed in {path}")
    comm.synchronize()
    space = dataset_categories(name).sem_seg_space
    part = f"{name}@{path}"
    register_coco_panoptic(part, metadata.image_root, metadata.panoptic_root, path, sem_seg_space=space)
    return part


def _choose(dicts: Sequence[dict[str, Any]], num_images: int) -> set[str]:
    """Keys of images that together show most classes: one after the other, the one that adds most."""
    shown = {image_key(d["image_id"]): _countable(d) for d in dicts}
    chosen: set[str] = set()
    seen: set[tuple[int, bool]] = set()
    while shown and len(chosen) < num_images:
        best = max(shown, key=lambda key: (len(shown[key] - seen), len(shown[key])))
        seen |= shown.pop(best)
        chosen.add(best)
    return chosen


def _countable(one: dict[str, Any]) -> set[tuple[int, bool]]:
    return {(s["category_id"], bool(s["isthing"])) for s in one["segments_info"] if not s.get("iscrowd", 0)}
