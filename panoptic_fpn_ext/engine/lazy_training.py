"""Training and evaluating what a LazyConfig describes, as detectron2's ``lazyconfig_train_net.py`` does."""

import contextlib
import copy
import os
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.engine import default_writers, hooks
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..data.panoptic_catalog import is_panoptic
from ..data.train_loader import TrainLoader
from .checkpoints.checkpoint import PanopticCheckpointer
from .checkpoints.model_categories import agree_on_categories, model_source, set_model_source
from .checkpoints.resume import Resumable
from .checkpoints.weight_average import WeightAverage
from .data_checks import check_data
from .device import distribute
from .evaluating.augmented_evaluation import as_augmented, augmented_model, print_results, say_augmented
from .evaluating.evaluation_pages import write_to_board
from .evaluating.evaluation_progress import evaluate_dataset, forget_progress
from .lazy_config import save_lazy_config
from .lazy_values import dataset_names
from .runs import augmented_folder, has_config
from .settings.silent_settings import warn_of_segments, warn_of_settings
from .settings.yacs_view import yacs_view
from .training.interruption import with_stop
from .training.nonfinite import NonFiniteSteps
from .training.periodic_evaluation import Best, PeriodicEvaluation, tolerant
from .training.progress import ProgressWriter
from .training.reproducible import ReproducibleIterations
from .training.train_step import TrainStep, choose_train_step

__all__ = ["build_lazy_model", "build_lazy_optimizer", "evaluate_lazily", "train_lazily"]


def build_lazy_model(cfg: DictConfig) -> nn.Module:
    """The model of a config on ``train.device``, not loaded."""
    model: nn.Module = instantiate(cfg.model)
    return model.to(cfg.train.device)


def build_lazy_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a config for the parameters of a model, with ``train.clip_gradients``."""
    described = copy.deepcopy(cfg.optimizer)
    described.params.model = model
    clipping = {key.upper(): value for key, value in cfg.train.get("clip_gradients", {"enabled": False}).items()}
    # detectron2 clips as SOLVER.CLIP_GRADIENTS says.
    solver = CfgNode({"SOLVER": {"CLIP_GRADIENTS": clipping}})
    return maybe_add_gradient_clipping(solver, instantiate(described))


def evaluate_lazily(
    cfg: DictConfig, model: nn.Module, progress_folder: str | None = None, *, with_views: bool = True
) -> dict[str, Any]:
    """Results of ``dataloader.evaluator`` on ``dataloader.test``, printed; empty where the config has no evaluator, and
    in all processes but the first.

    Args:
        cfg: as :func:`~panoptic_fpn_ext.engine.lazy_config.load_lazy_config` gives it.
        model: to evaluate.
        progress_folder: as of :func:`~panoptic_fpn_ext.engine.evaluating.evaluation_progress.evaluate_dataset`.
        with_views: whether ``train.test_aug`` counts.

    Raises:
        ValueError: the dataset's categories are not the model's.
    """
    if "evaluator" not in cfg.dataloader:
        return {}
    if (source := model_source(model)) is not None:
        agree_on_categories((), dataset_names(cfg, "test"), source)
    loader, evaluator = _build_loader(cfg, "test"), instantiate(cfg.dataloader.evaluator)
    name = ", ".join(dataset_names(cfg, "test"))
    results = evaluate_dataset(model, loader, evaluator, progress_folder)
    _print(results, name)
    write_to_board(evaluator)
    if with_views and cfg.train.get("test_aug", {}).get("enabled", False):
        described = copy.deepcopy(cfg.dataloader.evaluator)
        described.output_folder = augmented_folder(described.output_folder)
        progress = os.path.join(progress_folder, "TTA") if progress_folder else None
        loader = _build_loader(cfg, "test", at_own_size=True)  # each view is made of the image itself
        augmented = augmented_model(yacs_view(cfg).cfg, model)
        say_augmented()
        found = evaluate_dataset(augmented, loader, instantiate(described), progress)
        _print(found, name, augmented=True)
        results |= as_augmented(found)
    forget_progress(progress_folder)
    return results


def _print(results: dict[str, Any], dataset_name: str, *, augmented: bool = False) -> None:
    if results and comm.is_main_process():
        print_results(results, dataset_name, augmented=augmented)


def train_lazily(cfg: DictConfig, resume: bool = False, *, watch: hooks.HookBase | None = None) -> dict[str, Any]:
    """Train from ``train.init_checkpoint``, or from the last checkpoint in ``train.output_dir``.

    Args:
        cfg: as :func:`~panoptic_fpn_ext.engine.lazy_config.load_lazy_config` gives it; it is not changed.
        resume: go on from the last checkpoint, if there is one.
        watch: a hook that comes after the evaluations and may end the training, which a signal then ends at once:
            there is nothing to go on with.

    Returns:
        Results of the evaluation that ends every training.

    Raises:
        ValueError: the files of a dataset are not sound, see :func:`~panoptic_fpn_ext.engine.data_checks.check_data`.
    """
    _check_files(cfg)
    model = build_lazy_model(cfg)
    set_model_source(model, agree_on_categories(dataset_names(cfg, "train"), ()))
    optimizer = build_lazy_optimizer(cfg, model)
    # An iteration of alternating losses leaves parameters without a gradient.
    has_idle_branch = getattr(model, "alternate_losses", False) or cfg.train.ddp.find_unused_parameters
    model = distribute(model, **{**cfg.train.ddp, "find_unused_parameters": has_idle_branch})
    trainer = choose_train_step(
        model,
        _build_loader(cfg, "train"),
        optimizer,
        accumulate_steps=cfg.train.get("accumulate_steps", 1),
        mixed_precision=cfg.train.amp.enabled,
    )
    ema = cfg.train.get("ema", {})
    average = WeightAverage(model, ema.decay) if ema.get("enabled", False) else None
    checkpointer = PanopticCheckpointer(
        model,
        cfg.train.output_dir,
        keep=cfg.train.checkpointer.get("max_to_keep") or 0,
        average=average,
        trainer=Resumable(trainer),
    )
    results: dict[str, Any] = {}
    found = _hooks(cfg, trainer, checkpointer, average, results)
    trainer.register_hooks(with_stop(found, checkpointer) if watch is None else [*found, watch])
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    if resumed and has_config(cfg.train.output_dir) and comm.is_main_process():
        save_lazy_config(cfg, os.path.join(cfg.train.output_dir, "config.yaml"))
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return results


def _check_files(cfg: DictConfig) -> None:
    view = yacs_view(cfg)
    view.cfg.DATASETS.TRAIN, view.cfg.DATASETS.TEST = (tuple(dataset_names(cfg, part)) for part in ("train", "test"))
    check_data(view.cfg, view.names)


def _build_loader(cfg: DictConfig, split: str, *, at_own_size: bool = False) -> Any:
    """``dataloader.train`` or ``dataloader.test``, with a warning of settings that do not fit its datasets;
    ``at_own_size`` leaves out the augmentations.
    """
    described, names, view = copy.deepcopy(cfg.dataloader[split]), dataset_names(cfg, split), yacs_view(cfg)
    if at_own_size:
        described.mapper.augmentations = []
    warn_of_settings(view.cfg, names, training=split == "train", names=view.names)
    if "dataset" not in described or not any(map(is_panoptic, names)):
        return instantiate(described)
    # Built first, so that the files are read once; a LazyConfig must not hold so many dicts.
    parts = {key: described[key] for key in described if key != "dataset"}
    dicts = instantiate(described.dataset)
    warn_of_segments(view.cfg, names[0], dicts, training=split == "train", names=view.names)
    return instantiate({**parts, "dataset": dicts})


def _hooks(
    cfg: DictConfig,
    trainer: TrainStep,
    checkpointer: PanopticCheckpointer,
    average: WeightAverage | None,
    results: dict[str, Any],
) -> list[hooks.HookBase | None]:
    """detectron2's hooks in its order; ``results`` get those of the last evaluation."""

    def evaluate() -> dict[str, Any]:
        """As the hook calls it; the views of `test_aug` are for the evaluation at the end, as in a `Trainer`."""
        results.clear()
        is_last = trainer.iter + 1 >= trainer.max_iter
        with average.applied() if average is not None else contextlib.nullcontext():
            results.update(evaluate_lazily(cfg, trainer.model, with_views=is_last))
        return results

    kept = cfg.train.get("best_checkpointer") or {}
    best = Best(kept.get("val_metric") or "", kept.get("mode", "max"))
    found: list[hooks.HookBase | None] = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
        PeriodicEvaluation(cfg.train.eval_period, tolerant(evaluate, trainer), checkpointer, best),
    ]
    found.insert(0, NonFiniteSteps(trainer, checkpointer, cfg.train.get("max_nonfinite_steps", 10)))
    if average is not None:
        found.insert(0, average)
    loader = trainer.data_loader
    if isinstance(loader, TrainLoader):
        loader.seed = loader.seed if cfg.train.get("seed", -1) < 0 else cfg.train.seed
        found.insert(0, ReproducibleIterations(loader, trainer.model))
    if comm.is_main_process():
        os.makedirs(cfg.train.output_dir, exist_ok=True)
        # Before the evaluation, which an interruption may cut short.
        # The checkpointer itself removes old ones, when a newer one was read back.
        periodic = {key: value for key, value in cfg.train.checkpointer.items() if key != "max_to_keep"}
        found.insert(-1, hooks.PeriodicCheckpointer(checkpointer, **periodic))
        writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
        found.append(hooks.PeriodicWriter(writers, period=cfg.train.log_period))
        found.append(hooks.PeriodicWriter([ProgressWriter(cfg.train.max_iter)], period=1))
    return found
