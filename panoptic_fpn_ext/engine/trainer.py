"""detectron2's trainer, joined with this package's mapper and evaluators; one process or many, with GPUs or without."""

import contextlib
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.solver import build_lr_scheduler
from detectron2.solver.lr_scheduler import LRScheduler
from detectron2.utils import comm

from ..console import start_console
from ..data import PanopticDatasetMapper
from ..data.panoptic_catalog import is_panoptic
from ..data.train_loader import TrainLoader
from .checkpoints.checkpoint import PanopticCheckpointer
from .checkpoints.exported import open_exported_model
from .checkpoints.model_categories import agree_on_categories, model_source, set_model_source
from .checkpoints.model_files import is_exported, last_checkpoint
from .checkpoints.resume import fitting_state, follow_schedule
from .checkpoints.weight_average import WeightAverage
from .checks import check_config
from .data_checks import check_data
from .device import distribute
from .evaluating.augmented_evaluation import (
    as_augmented,
    augmented_model,
    own_size_mapper,
    print_results,
    say_augmented,
)
from .evaluating.evaluation_pages import write_to_board
from .evaluating.evaluation_progress import evaluate_dataset, forget_progress
from .evaluating.evaluators import build_evaluator
from .runs import PROGRESS, augmented_folder, has_config, write_whole
from .settings.options import check_options
from .settings.schedule import build_fixed_gamma_scheduler, scale_schedule
from .settings.silent_settings import warn_of_segments, warn_of_settings
from .training.interruption import with_stop
from .training.nonfinite import NonFiniteSteps
from .training.optimizer import build_optimizer
from .training.periodic_evaluation import Best, PeriodicEvaluation, tolerant
from .training.progress import ProgressWriter
from .training.reproducible import ReproducibleIterations
from .training.train_loader import build_train_loader
from .training.train_step import build_train_step

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for panoptic datasets. Differences: the config is checked against the datasets first,
    panoptic maps are mapped to targets, evaluators are chosen by the dataset, the model and its checkpoints know their
    categories, and several processes also work without a GPU."""

    def __init__(self, cfg: CfgNode) -> None:
        """Build everything that ``cfg`` describes; raises ``ValueError`` where it does not fit its datasets."""
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is empty: set it to the datasets to train on.")
        cfg = cfg.clone()
        scale_schedule(cfg)
        check_options(cfg)
        source = check_config(cfg)
        # As DefaultTrainer.__init__, which wraps the model for GPUs only.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            start_console()
        check_data(cfg)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        warn_of_settings(cfg, cfg.DATASETS.TRAIN, training=True)
        model = self.build_model(cfg)
        set_model_source(model, source if is_panoptic(cfg.DATASETS.TRAIN[0]) else None)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        # An iteration of alternating losses leaves parameters without a gradient.
        has_idle_branch = cfg.MODEL.PANOPTIC_FPN.get("ALTERNATE_LOSSES", False)
        model = distribute(model, find_unused_parameters=has_idle_branch)
        self._trainer = build_train_step(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        ema = cfg.SOLVER.get("EMA")
        self.average = WeightAverage(model, ema.DECAY) if ema is not None and ema.ENABLED else None
        keep = cfg.SOLVER.get("CHECKPOINTS_TO_KEEP", 0)
        trained = weakref.proxy(self)
        self.checkpointer = PanopticCheckpointer(
            model, cfg.OUTPUT_DIR, keep=keep, average=self.average, trainer=trained
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """detectron2's, one that resumes exactly, one that ends a training on request, and one for whoever watches."""
        best = Best(*(self.cfg.SOLVER.get("BEST_CHECKPOINTER", {}).get(key, "") for key in ("METRIC", "MODE")))
        found: list[hooks.HookBase | None] = [
            PeriodicEvaluation(hook._period, self._or_go_on(hook._func), self.checkpointer, best)
            if isinstance(hook, hooks.EvalHook)
            else hook
            for hook in super().build_hooks()
        ]
        found = with_stop(found, self.checkpointer)
        most = self.cfg.SOLVER.get("MAX_NONFINITE_STEPS", 10)
        if self.cfg.TEST.AUG.ENABLED:
            last = next(i for i, hook in enumerate(found) if isinstance(hook, hooks.EvalHook))
            found.insert(last + 1, hooks.EvalHook(0, self._or_go_on(self._test_augmented)))
        found.insert(0, NonFiniteSteps(self._trainer, self.checkpointer, most))
        if self.average is not None:
            found.insert(0, self.average)
        if isinstance(self.data_loader, TrainLoader):
            found.insert(0, ReproducibleIterations(self.data_loader, self.model))
        if comm.is_main_process():
            found.append(hooks.PeriodicWriter([ProgressWriter(self.max_iter)], period=1))
        return found

    def train(self) -> dict[str, Any] | None:
        """Train; returns the last results where ``TEST.EXPECTED_RESULTS`` has some, and exits with 1 where missed."""
        TrainerBase.train(self, self.start_iter, self.max_iter)
        if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
            return None
        results: dict[str, Any] = getattr(self, "_last_eval_results", {})
        _verify(self.cfg, results)
        return results

    def _test_augmented(self) -> dict[str, Any]:
        results = self.test_with_TTA(self.cfg, self.model)
        plain: dict[str, Any] = getattr(self, "_last_eval_results", {})
        self._last_eval_results = {**plain, **results}
        return results

    def _or_go_on(self, evaluate: Callable[[], Any]) -> Callable[[], Any]:
        """An evaluation, of the average where there is one."""

        def evaluate_average() -> Any:
            with self.average.applied() if self.average is not None else contextlib.nullcontext():
                return evaluate()

        return tolerant(evaluate_average, self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the parent's; for an optimizer that changed see
        :func:`~panoptic_fpn_ext.engine.checkpoints.resume.fitting_state`.
        """
        super().load_state_dict(fitting_state(state_dict, self))
        follow_schedule(self.optimizer, self.scheduler)

    def resume_or_load(self, resume: bool = True) -> None:
        """As the parent's; the ``config.yaml`` of a run that is resumed becomes that of this config."""
        folder = self.cfg.OUTPUT_DIR
        resumed = resume and self.checkpointer.has_checkpoint() and has_config(folder)
        super().resume_or_load(resume=resume)
        if resumed and comm.is_main_process():
            write_whole(os.path.join(folder, "config.yaml"), self.cfg.dump())

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """See :func:`~panoptic_fpn_ext.engine.training.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """detectron2's schedules; of ``WarmupStepWithFixedGammaLR`` also the end, where its own fails."""
        if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupStepWithFixedGammaLR":
            return build_fixed_gamma_scheduler(cfg, optimizer)
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """See :func:`~panoptic_fpn_ext.engine.training.train_loader.build_train_loader`."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str, mapper: Callable[..., Any] | None = None) -> Any:
        """detectron2's test loader with the same way to read images; ``mapper`` in place of the config's."""
        dicts = get_detection_dataset_dicts([dataset_name], filter_empty=False)
        if is_panoptic(dataset_name):
            warn_of_settings(cfg, [dataset_name])
            warn_of_segments(cfg, dataset_name, dicts)
        mapper = mapper or PanopticDatasetMapper(cfg, is_train=False)
        return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def evaluate_checkpoint(cls, cfg: CfgNode, output_folder: str, *, resume: bool = False) -> dict[str, Any]:
        """Results of ``MODEL.WEIGHTS``, or with ``resume`` of the last checkpoint in ``OUTPUT_DIR``.

        ``MODEL.WEIGHTS`` is a checkpoint or an exported file. The evaluators write to ``output_folder``, and with
        ``TEST.AUG.ENABLED`` to another with ``_TTA`` behind its name. Where ``TEST.EXPECTED_RESULTS`` are missed, the
        process exits with 1.
        """
        if is_exported(cfg.MODEL.WEIGHTS) and not (resume and last_checkpoint(cfg.OUTPUT_DIR)):
            if cfg.TEST.AUG.ENABLED:
                raise ValueError("TEST.AUG.ENABLED: an exported file predicts one view. Set it to False.")
            cfg, model = open_exported_model(cfg)
        else:
            model = cls.build_model(cfg)
            checkpointer = PanopticCheckpointer(model, cfg.OUTPUT_DIR, complete=True)
            checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        cls._compare_categories(cfg, model)
        evaluators = [cls.build_evaluator(cfg, name, output_folder) for name in cfg.DATASETS.TEST]
        progress = os.path.join(output_folder, PROGRESS)
        results = cls._evaluate(cfg, model, evaluators, progress_folder=progress)
        if cfg.TEST.AUG.ENABLED:
            results |= cls.test_with_TTA(cfg, model, augmented_folder(output_folder), progress_folder=f"{progress}/TTA")
        forget_progress(progress)
        if comm.is_main_process():
            _verify(cfg, results)
        return results

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
        *,
        progress_folder: str | None = None,
    ) -> dict[str, Any]:
        """As the base class, once the categories of ``DATASETS.TEST`` were compared with the model's.

        ``progress_folder`` is where the state of the evaluation goes, see
        :func:`~panoptic_fpn_ext.engine.evaluating.evaluation_progress.evaluate_dataset`.

        Raises:
            UnreadableFileError: images could not be read.
            ValueError: the categories are others, see
                :func:`~panoptic_fpn_ext.engine.checkpoints.model_categories.agree_on_categories`.
        """
        cls._compare_categories(cfg, model)
        evaluators = evaluators or [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        results = cls._evaluate(cfg, model, evaluators, progress_folder=progress_folder)
        forget_progress(progress_folder)
        return results

    @classmethod
    def test_with_TTA(
        cls, cfg: CfgNode, model: torch.nn.Module, output_folder: str = "", *, progress_folder: str | None = None
    ) -> dict[str, Any]:
        """Results with ``TEST.AUG``, of each task under its name with ``_TTA`` behind it.

        The evaluators write to ``output_folder``, by default ``OUTPUT_DIR/inference_TTA``. Other arguments and errors
        as of :meth:`test`.
        """
        cls._compare_categories(cfg, model)
        folder = output_folder or augmented_folder(os.path.join(cfg.OUTPUT_DIR, "inference"))
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        views = augmented_model(cfg, model)
        say_augmented()
        return as_augmented(cls._evaluate(cfg, views, evaluators, progress_folder=progress_folder, augmented=True))

    @classmethod
    def _evaluate(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: list[DatasetEvaluator],
        *,
        progress_folder: str | None,
        augmented: bool = False,
    ) -> dict[str, Any]:
        results: dict[str, Any] = {}
        mapper = {"mapper": own_size_mapper(cfg)} if augmented else {}
        for number, (name, evaluator) in enumerate(zip(cfg.DATASETS.TEST, evaluators, strict=True)):
            folder = os.path.join(progress_folder, str(number)) if progress_folder else None
            loader = cls.build_test_loader(cfg, name, **mapper)
            results[name] = evaluate_dataset(model, loader, evaluator, folder)
            if not augmented:  # the board has one result an iteration, the plain one
                write_to_board(evaluator)
            if comm.is_main_process():
                print_results(results[name], name, augmented=augmented)
        return results if len(results) != 1 else next(iter(results.values()))

    @staticmethod
    def _compare_categories(cfg: CfgNode, model: torch.nn.Module) -> None:
        if (source := model_source(model)) is not None:
            agree_on_categories((), cfg.DATASETS.TEST, source)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        """See :func:`~panoptic_fpn_ext.engine.evaluating.evaluators.build_evaluator`."""
        return build_evaluator(cfg, dataset_name, output_folder)


def _verify(cfg: CfgNode, results: dict[str, Any]) -> None:
    """As detectron2's `verify_results`, but a task that was not measured is a miss and no KeyError."""
    missing: dict[str, Any] = {task: {} for task, *_ in cfg.TEST.EXPECTED_RESULTS if task not in results}
    for task in missing:
        logger.error(f"TEST.EXPECTED_RESULTS has {task}, which was not measured; these were: {', '.join(results)}.")
    verify_results(cfg, {**results, **missing})
