"""From the command line to a LazyConfig: what ``setup`` is for YAML configs."""

import argparse
import glob
import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

from ..categories import THINGS_AS_OTHER
from ..pixel_bound import set_pixel_bound
from ..utf8 import as_text, utf8_configs
from .checkpoints.checkpoint import recorded_source
from .checkpoints.model_categories import CategorySource, agree_on_categories, semantic_space
from .checkpoints.model_files import checkpoint_path, find_model, last_checkpoint
from .checks import HOW_TO_REGISTER, check_input_format, prediction_source
from .data_descriptions import register_categories, register_used_datasets, registrations_of
from .device import available_device
from .lazy_values import DATASETS, all_datasets, check_lazy_head_sizes, dataset_names, fill_in_head_sizes
from .output_folder import hold_output_folder
from .runs import (
    adopted,
    begin_console,
    begin_log,
    has_checkpoint,
    has_config,
    inference_folder,
    introduce,
    refuse_missing_weights,
    refuse_used_folder,
    seed_process,
    shared_unused_folder,
    warn_of_learnt_images,
)
from .settings.lazy_keys import quoted, refuse_unknown_keys
from .settings.options import check_options
from .settings.yacs_view import renamed, yacs_view

__all__ = [
    "complete_lazy_prediction_config",
    "load_lazy_config",
    "load_lazy_prediction_config",
    "read_lazy_config",
    "save_lazy_config",
    "setup_lazy",
]

logger = logging.getLogger(__name__)

_PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def setup_lazy(args: argparse.Namespace) -> DictConfig:
    """Config of a run, checked, with console, log and random numbers set up, as
    :func:`~panoptic_fpn_ext.engine.setup.setup` does.

    ``args`` are those of :func:`~panoptic_fpn_ext.engine.setup.argument_parser`; ``args.opts`` are ``key=value``. The
    evaluator of an evaluation gets its folder.
    """
    begin_console(args)
    args.register = [*args.register, *registrations_of(getattr(args, "data", ()))]
    cfg = read_lazy_config(args.config_file, args.opts, args.register, trained=args.eval_only)
    if getattr(args, "overfit", None) is not None:
        cfg.train.output_dir = shared_unused_folder(os.path.join(cfg.train.output_dir, "overfit"))
        cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names  # of which it takes a part
    output = folder = cfg.train.output_dir
    resumed = args.resume and not args.eval_only and has_checkpoint(output) and has_config(output)
    if not (args.resume and has_checkpoint(output)):
        weights = cfg.train.init_checkpoint
        refuse_missing_weights(weights, "train.init_checkpoint", needed=args.eval_only, folder=output)
    if not args.eval_only:
        hold_output_folder(folder)
    if not args.eval_only and not args.resume:
        refuse_used_folder(output, "train.output_dir")
    if not args.eval_only and getattr(args, "overfit", None) is None:
        warn_of_learnt_images(dataset_names(cfg, "train"), dataset_names(cfg, "test"))
    _prepare(cfg, args.register, eval_only=args.eval_only, resume=args.resume)
    if args.eval_only:
        folder = args.inference_folder = inference_folder(
            output,
            (last_checkpoint(output) if args.resume else "") or cfg.train.init_checkpoint,
            _text(cfg),
            resume=args.resume,
        )
        hold_output_folder(folder)
        if "evaluator" in cfg.dataloader:
            cfg.dataloader.evaluator.output_folder = folder
    else:
        torch.backends.cudnn.benchmark = cfg.train.get("cudnn_benchmark", False)
    begin_log(folder, _text(cfg))
    if comm.is_main_process() and not resumed:  # else `train_lazily` does, once the checkpoint fits
        save_lazy_config(cfg, os.path.join(folder, "config.yaml"))
    seed_process(cfg.train.get("seed", -1))
    batch_size = cfg.dataloader.train.get("total_batch_size", "?")
    introduce(
        all_datasets(cfg),
        output_dir=output,
        weights=cfg.train.init_checkpoint,
        resume=args.resume,
        training=None
        if args.eval_only
        else f"{cfg.train.max_iter} iterations of {batch_size} images on {cfg.train.device}",
    )
    return cfg


def _text(cfg: DictConfig) -> str:
    """A config for the log; one that YAML cannot hold in a rough form."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        with utf8_configs():
            LazyConfig.save(cfg, str(file))
        return file.read_text(encoding="utf-8") if file.is_file() else str(cfg)


def save_lazy_config(cfg: DictConfig, path: str) -> None:
    """Write a config as a whole; one that YAML cannot hold becomes a pickle, as detectron2 has it."""
    with utf8_configs():
        LazyConfig.save(cfg, f"{path}.part")
    for part in glob.glob(f"{glob.escape(path)}.part*"):
        os.replace(part, part.replace(".part", ""))


def load_lazy_config(
    config_file: str,
    overrides: list[str],
    registrations: list[list[str]],
    *,
    eval_only: bool = False,
    resume: bool = False,
) -> DictConfig:
    """Config of a ``.py`` file, or of the ``config.yaml`` that a run left, and ``key=value`` overrides.

    Datasets are registered and their categories compared, head sizes of 0 are taken from the training set and all of
    them checked, and ``train.device`` becomes ``cpu`` where there is no GPU. Arguments are those of
    :func:`~panoptic_fpn_ext.engine.setup.load_config`.

    Raises:
        FileNotFoundError, KeyError, ValueError: missing files, parts or datasets, categories or sizes that do not fit.
    """
    cfg = read_lazy_config(config_file, overrides, registrations, trained=eval_only)
    _prepare(cfg, registrations, eval_only=eval_only, resume=resume)
    return cfg


def load_lazy_prediction_config(config_file: str, overrides: list[str], registrations: list[list[str]]) -> DictConfig:
    """As :func:`load_lazy_config`, for predicting only: no dataset is needed where the checkpoint records its
    categories, and otherwise only the categories of one.
    """
    cfg = read_lazy_config(config_file, overrides, registrations, trained=True, predicting=True)
    register_categories(registrations, cfg.train.get("sem_seg_space", THINGS_AS_OTHER))
    complete_lazy_prediction_config(cfg)
    return cfg


def complete_lazy_prediction_config(cfg: DictConfig) -> CategorySource | None:
    """Check the options, take head sizes of 0 from the categories that the model predicts, and check the others; as
    :func:`~panoptic_fpn_ext.engine.setup.complete_prediction_config`.
    """
    view = yacs_view(cfg)
    check_options(view.cfg, training=False, names=view.names)
    check_input_format(view.cfg, view.names)
    view.cfg.DATASETS.TEST = tuple(dataset_names(cfg, "test"))
    try:
        source = prediction_source(view.cfg, recorded_source(cfg.train.init_checkpoint))
    except KeyError as error:  # no categories, perhaps since there is no such file
        refuse_missing_weights(cfg.train.init_checkpoint, "train.init_checkpoint", needed=False)
        names = {**view.names, "DATASETS.TEST": DATASETS["test"], "MODEL.WEIGHTS": "train.init_checkpoint"}
        raise KeyError(renamed(error.args[0], names) or error.args[0]) from error
    if source is not None:
        fill_in_head_sizes(cfg, source)
        check_lazy_head_sizes(cfg, source)
    return source


def read_lazy_config(
    config_file: str, overrides: list[str], registrations: list[list[str]], *, trained: bool, predicting: bool = False
) -> DictConfig:
    """A config of a name with its overrides, not checked against its datasets; arguments and errors as
    :func:`load_lazy_config`.

    With ``trained``, ``train.init_checkpoint`` is what comes with the name unless ``overrides`` set it; with
    ``predicting``, nothing is said of datasets.
    """
    config_file, weights = find_model(config_file)
    with utf8_configs():
        _refuse_calls(config_file)
    cfg = LazyConfig.load(config_file)
    overrides = [as_text(word) if word.startswith(tuple(DATASETS.values())) else word for word in overrides]
    refuse_unknown_keys(cfg, overrides)
    missing = [part for part in _PARTS if part not in cfg]
    if missing:
        raise KeyError(f"{config_file} lacks {missing}: a LazyConfig needs {list(_PARTS)}. Is it one?")
    if trained and weights:
        cfg.train.init_checkpoint = weights
    cfg = _overridden(cfg, overrides)
    cfg.train.init_checkpoint = checkpoint_path(cfg.train.init_checkpoint)
    cfg.train.device = available_device(cfg.train.device)
    set_pixel_bound(cfg.train.get("max_image_pixels", 0))
    train, test = ([override for override in overrides if override.startswith(key)] for key in DATASETS.values())
    used = [dataset_names(cfg, split) for split in DATASETS]
    registered = [as_text(name) for name, *_ in registrations]
    training = None if predicting else not trained
    found = adopted(registered, *used, typed=(bool(train), bool(test)), training=training)
    for key, former, names in zip(DATASETS.values(), used, found, strict=True):
        if names != former:
            OmegaConf.update(cfg, key, *names)
    return cfg


def _overridden(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    for override in quoted(cfg, overrides):
        try:
            cfg = LazyConfig.apply_overrides(cfg, [override])
        except Exception as error:  # the parser of detectron2 has types of its own
            key, _, value = override.partition("=")
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"Override {override!r} cannot be read ({reason}). A text needs quotes: \"{key}='{value}'\""
            ) from error
    return cfg


def _prepare(cfg: DictConfig, registrations: list[list[str]], *, eval_only: bool, resume: bool) -> None:
    """Check the options, register the datasets, compare their categories, fill in what is left to them and check the
    rest."""
    view = yacs_view(cfg)
    check_options(view.cfg, training=not eval_only, names=view.names)
    check_input_format(view.cfg, view.names)
    last = last_checkpoint(cfg.train.output_dir) if resume else ""
    known = recorded_source(last or (cfg.train.init_checkpoint if eval_only else ""))
    trained = known if eval_only else None
    train, test = [] if trained else dataset_names(cfg, "train"), dataset_names(cfg, "test")
    space = semantic_space(known, cfg.train.get("sem_seg_space", THINGS_AS_OTHER), "train.sem_seg_space")
    if registrations:
        cfg.train.sem_seg_space = space
    register_used_datasets([*train, *test], registrations, space)
    unknown = [name for name in (*train, *test) if name not in DatasetCatalog]
    if unknown:
        raise KeyError(f"Datasets {unknown} ({', '.join(DATASETS.values())}) are not registered. {HOW_TO_REGISTER}")
    source = agree_on_categories(train, test, trained)
    if source is not None:
        fill_in_head_sizes(cfg, source)
        check_lazy_head_sizes(cfg, source)


def _refuse_calls(config_file: str) -> None:
    """detectron2 reads YAML so that its tags may call any function; what a run leaves needs none."""
    if config_file.endswith(".py"):
        return
    with PathManager.open(config_file, encoding="utf-8") as f:
        try:
            yaml.load(f, _PlainLoader)
        except yaml.YAMLError as error:
            reason = str(error).replace("\n", " ")
            raise ValueError(f"{config_file} is no config of plain values: {reason}") from error


class _PlainLoader(yaml.SafeLoader):
    """With tuples and with shapes of feature maps, which are four numbers."""


_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node))
)
_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/object:detectron2.layers.shape_spec.ShapeSpec",
    lambda loader, node: loader.construct_mapping(node),
)
