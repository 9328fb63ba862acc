"""``--overfit N``: learn N images by heart. What cannot be has a fault in the data, the config or the code."""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from tabulate import tabulate

from ..coco_json import image_key, read_panoptic
from ..data import dataset_categories, register_coco_panoptic
from .model_outputs import model_outputs
from .runs import write_whole
from .trainer import Trainer

__all__ = ["NOT_LEARNT", "add_overfit_argument", "overfit", "prepare_overfit"]

logger = logging.getLogger(__name__)

NOT_LEARNT: Final = 1
"""Exit status where a class was not learnt."""

_LEARNT = 0.5  # PQ of a class
_ROUNDS = 10  # evaluations on the way
# Before the user's options: nothing is drawn at random, nothing is held back, and the rate does not fall.
_OPTIONS: Final = (
    *("INPUT.CROP.ENABLED", "False", "INPUT.RANDOM_FLIP", "none", "INPUT.COLOR_AUG_SSD", "False"),
    *("SOLVER.MAX_ITER", "600", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "()"),
    *("SOLVER.WEIGHT_DECAY", "0.0", "MODEL.PANOPTIC_FPN.OUTPUTS", "['panoptic_seg']"),
)


class _Learnt(BaseException):
    """Ends a training before its last iteration; no error, of which the trainer would log a traceback."""


def add_overfit_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--overfit N`` to a parser."""
    parser.add_argument(
        "--overfit",
        type=int,
        metavar="N",
        help="is the pipeline sound? Train on N images of the training set until they are learnt, for at most "
        "SOLVER.MAX_ITER iterations (600), and say which class is not. Exit status 1 if one is not. Written to "
        "OUTPUT_DIR/overfit.",
    )


def prepare_overfit(args: argparse.Namespace) -> None:
    """Options of ``args.overfit`` for ``setup``; those of the command line still go before them.

    Raises:
        ValueError: fewer images than one, or other options that say not to train afresh.
    """
    if args.overfit < 1 or args.eval_only or args.resume:
        raise ValueError("--overfit N needs at least one image, and goes without --eval-only and --resume.")
    args.opts = [*_OPTIONS, *args.opts]


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
    if "panoptic_seg" not in model_outputs(cfg):
        raise ValueError(
            f"--overfit measures PQ, but MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} makes no panoptic maps."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (_register(cfg.DATASETS.TRAIN[0], num_images, cfg.OUTPUT_DIR),)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (cfg.INPUT.MIN_SIZE_TEST,), cfg.INPUT.MAX_SIZE_TEST
    cfg.TEST.EVAL_PERIOD, cfg.TEST.EXPECTED_RESULTS = -(-cfg.SOLVER.MAX_ITER // _ROUNDS), []
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.SOLVER.MAX_ITER
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([_StopWhenLearnt()])
    evaluation = logging.getLogger("panoptic_fpn_ext.evaluation")
    level = evaluation.level
    evaluation.setLevel(logging.WARNING)  # one table, at the end
    try:
        trainer.train()
    except _Learnt:
        pass
    finally:
        evaluation.setLevel(level)
    rows = _results(cfg.OUTPUT_DIR)
    if comm.is_main_process():
        logger.info(_verdict(rows, min(trainer.iter + 1, trainer.max_iter)))
    return all(map(_is_learnt, rows))


class _StopWhenLearnt(HookBase):
    def after_step(self) -> None:
        """Comes after the evaluation."""
        cfg, done = self.trainer.cfg, self.trainer.iter + 1
        if done % cfg.TEST.EVAL_PERIOD == 0 and done < self.trainer.max_iter:
            learnt = [_is_learnt(row) for row in _results(cfg.OUTPUT_DIR)]
            if comm.is_main_process():
                logger.info(f"Learnt after {done} iterations: {sum(learnt)} of {len(learnt)} classes")
            if all(learnt):
                raise _Learnt


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


def _results(folder: str) -> list[dict[str, Any]]:
    """What the last evaluation counted of each class that the images show; the same in all processes."""
    comm.synchronize()
    content = json.loads(Path(folder, "inference", "panoptic_quality.json").read_text(encoding="utf-8"))
    return [row for row in content["per_class"] if row["tp"] + row["fn"]]


def _is_learnt(row: dict[str, Any]) -> bool:
    return (row["pq"] or 0) >= _LEARNT


def _verdict(rows: Sequence[dict[str, Any]], iterations: int) -> str:
    lines = [
        [row["name"], "thing" if row["isthing"] else "stuff", row["tp"] + row["fn"], 100 * (row["pq"] or 0), _said(row)]
        for row in sorted(rows, key=lambda row: row["pq"] or 0)
    ]
    table = tabulate(lines, ["class", "kind", "segments", "PQ", ""], tablefmt="simple", floatfmt=".1f")
    bad = [row["name"] for row in rows if not _is_learnt(row)]
    if not bad:
        return f"{table}\nThe pipeline is sound: each class was learnt in {iterations} iterations."
    return (
        f"{table}\nNot learnt in {iterations} iterations: {', '.join(bad)}. Look at their annotations "
        "(python -m panoptic_fpn_ext.data.check … --html PAGE.html) and at the warnings above; if PQ still rose, give "
        "it more: SOLVER.MAX_ITER."
    )


def _said(row: dict[str, Any]) -> str:
    if _is_learnt(row):
        return "learnt"
    if not row["tp"]:
        return "never predicted" if not row["fp"] else "predicted, but never where it is"
    return f"{row['fn']} not found, {row['fp']} where nothing is"
