"""From the command line to a config: arguments and steps that all projects share."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from ..categories import THINGS_AS_OTHER
from ..config import add_panoptic_fpn_ext_config
from ..pixel_bound import set_pixel_bound
from ..utf8 import as_text
from .checkpoints.checkpoint import recorded_source
from .checkpoints.model_categories import CategorySource, agree_on_categories, semantic_space
from .checkpoints.model_files import checkpoint_path, find_model, last_checkpoint
from .checks import check_config, check_head_sizes, check_input_format, fill_in_num_classes, prediction_source
from .data_descriptions import (
    add_data_argument,
    add_register_argument,
    register_categories,
    register_used_datasets,
    registrations_of,
)
from .device import use_available_device, use_float32_precision
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
    write_whole,
)
from .settings.config_keys import as_lazy_config, merge_file, merge_pairs
from .settings.options import check_options
from .settings.schedule import scale_schedule
from .settings.timm_record import record_timm_weights

__all__ = [
    "add_verbose_argument",
    "adopt_registered",
    "argument_parser",
    "complete_prediction_config",
    "load_config",
    "load_prediction_config",
    "read_config",
    "setup",
]

# Of detectron2's arguments.
_HELP = {
    "config_file": "the config: a file or a name of the zoo; with --eval-only also a checkpoint or the folder of a run",
    "resume": "go on from the last checkpoint in OUTPUT_DIR; start if there is none",
    "eval_only": "evaluate MODEL.WEIGHTS, or with --resume the last checkpoint, instead of training",
    "num_gpus": "processes on this machine, one a GPU; without a GPU they share the processor",
    "num_machines": "number of machines",
    "machine_rank": "which of them this is, from 0",
    "dist_url": "where the machines meet, tcp://HOST:PORT with HOST being machine 0",
    "opts": "config options, after all others: KEY VALUE …, and key=value … for a LazyConfig",
}


def argument_parser(epilog: str | None = None, description: str | None = None) -> argparse.ArgumentParser:
    """detectron2's arguments, plus ``--register`` for datasets in COCO panoptic format.

    Args:
        epilog: end of the help, with an example.
        description: its beginning.
    """
    parser = default_argument_parser(epilog)
    parser.description = description
    for action in parser._actions:
        action.help = _HELP.get(action.dest, action.help)
    add_register_argument(parser)
    add_data_argument(parser)
    add_verbose_argument(parser)
    return parser


def add_verbose_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose`` to a parser."""
    parser.add_argument("--verbose", action="store_true", help="show on the console all that log.txt gets")


def adopt_registered(
    cfg: CfgNode, registrations: Sequence[Sequence[str]], opts: Sequence[Any] = (), *, training: bool | None = True
) -> None:
    """Take the datasets of ``--register`` where neither the config nor ``opts`` says what to do with them.

    That is of ``DATASETS.TRAIN`` and ``DATASETS.TEST`` what has none of their names and is not in ``opts``. See
    :func:`~panoptic_fpn_ext.engine.runs.adopted`.
    """
    typed = "DATASETS.TRAIN" in opts[::2], "DATASETS.TEST" in opts[::2]
    names = [as_text(name) for name, *_ in registrations]
    found = adopted(names, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, typed=typed, training=training)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = map(tuple, found)


def setup(args: argparse.Namespace) -> CfgNode:
    """Config of a run, checked and frozen, with console, log and random numbers set up.

    ``MODEL.DEVICE cuda`` becomes ``cpu`` where there is no GPU. ``config.yaml`` and ``log.txt`` are written into
    ``OUTPUT_DIR``; those of an evaluation (``args.eval_only``) into a folder of its own there, which
    ``args.inference_folder`` gets, and nothing else is touched. The ``config.yaml`` of a resumed training is written by
    ``Trainer.resume_or_load``, once it is known that the checkpoint fits.

    Raises:
        FileNotFoundError, KeyError, ValueError: as :func:`load_config`; a new training in a folder that has one.
    """
    begin_console(args)
    cfg = read_config(args.config_file, args.opts, trained=args.eval_only)
    if getattr(args, "overfit", None) is not None:
        cfg.OUTPUT_DIR = shared_unused_folder(os.path.join(cfg.OUTPUT_DIR, "overfit"))
    folder = cfg.OUTPUT_DIR
    resumed = args.resume and not args.eval_only and has_checkpoint(folder) and has_config(folder)
    # What is wrong with files is said before any dataset is read or drawn.
    if not (args.resume and has_checkpoint(folder)):
        refuse_missing_weights(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS", needed=args.eval_only, folder=folder)
    if not args.eval_only:
        hold_output_folder(folder)
    if not args.eval_only and not args.resume:
        refuse_used_folder(folder, "OUTPUT_DIR")
    args.register = [*args.register, *registrations_of(getattr(args, "data", ()))]
    adopt_registered(cfg, args.register, args.opts, training=not args.eval_only)
    if getattr(args, "overfit", None) is not None:
        cfg.DATASETS.TEST = cfg.DATASETS.TRAIN  # of which it takes a part to evaluate, too
    elif not args.eval_only:
        warn_of_learnt_images(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    _prepare(cfg, args.register, eval_only=args.eval_only, resume=args.resume)
    if args.eval_only:
        weights = (last_checkpoint(folder) if args.resume else "") or cfg.MODEL.WEIGHTS
        folder = args.inference_folder = inference_folder(folder, weights, cfg.dump(), resume=args.resume)
        hold_output_folder(folder)
    else:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    use_float32_precision(cfg.get("FLOAT32_PRECISION", ""))
    begin_log(folder, cfg.dump())
    if comm.is_main_process() and not resumed:
        write_whole(os.path.join(folder, "config.yaml"), cfg.dump())
    seed_process(cfg.SEED)
    solver = cfg.SOLVER
    introduce(
        (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST),
        output_dir=cfg.OUTPUT_DIR,
        weights=cfg.MODEL.WEIGHTS,
        resume=args.resume,
        training=None
        if args.eval_only
        else f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images on {cfg.MODEL.DEVICE}",
    )
    return cfg


def load_config(
    config_file: str, opts: list[str], registrations: list[list[str]], *, eval_only: bool = False, resume: bool = False
) -> CfgNode:
    """Config of a file and ``KEY VALUE`` pairs, with datasets registered, categories and head sizes checked, frozen.

    Args:
        config_file: see :func:`~panoptic_fpn_ext.engine.checkpoints.model_files.find_model`.
        opts: pairs that override the file's.
        registrations: ``(name, image_root, panoptic_root, panoptic_json)`` each.
        eval_only: a trained model is to be evaluated: its weights may come with the config's name, and its categories
            from its checkpoint.
        resume: then its checkpoint is the last one in ``OUTPUT_DIR``, if there is one.

    Raises:
        FileNotFoundError, KeyError, ValueError: missing files, unknown datasets or keys, categories or sizes that do
            not fit.
    """
    cfg = read_config(config_file, opts, trained=eval_only)
    adopt_registered(cfg, registrations, opts, training=not eval_only)
    _prepare(cfg, registrations, eval_only=eval_only, resume=resume)
    return cfg


def _prepare(cfg: CfgNode, registrations: list[list[str]], *, eval_only: bool, resume: bool) -> None:
    check_options(cfg)
    last = last_checkpoint(cfg.OUTPUT_DIR) if resume else ""
    known = recorded_source(last or (cfg.MODEL.WEIGHTS if eval_only else ""))
    trained = known if eval_only else None
    train = () if trained else cfg.DATASETS.TRAIN  # a model that knows its categories needs no training data
    space = semantic_space(known, cfg.DATASETS.get("SEM_SEG_SPACE", THINGS_AS_OTHER), "DATASETS.SEM_SEG_SPACE")
    if registrations:
        cfg.DATASETS.SEM_SEG_SPACE = space
    register_used_datasets((*train, *cfg.DATASETS.TEST), registrations, space)
    train = [name for name in train if name in DatasetCatalog]
    fill_in_num_classes(cfg, agree_on_categories(train, cfg.DATASETS.TEST, trained))
    record_timm_weights(cfg)
    check_config(cfg, trained, training=not eval_only)
    cfg.freeze()


def load_prediction_config(config_file: str, opts: list[str], registrations: list[list[str]]) -> CfgNode:
    """As :func:`load_config`, for predicting only: no dataset is needed where the checkpoint records its categories,
    and otherwise only the categories of one.

    See :func:`register_categories`.
    """
    cfg = read_config(config_file, opts, trained=True)
    adopt_registered(cfg, registrations, opts, training=None)
    check_options(cfg, training=False)
    register_categories(registrations, cfg.DATASETS.get("SEM_SEG_SPACE", THINGS_AS_OTHER))
    check_input_format(cfg)
    complete_prediction_config(cfg)
    cfg.freeze()
    return cfg


def complete_prediction_config(cfg: CfgNode) -> CategorySource | None:
    """Take head sizes of 0 from the categories that the model of ``MODEL.WEIGHTS`` predicts, and check the others.

    Returns:
        These categories; None where they are not known to be panoptic.

    Raises:
        FileNotFoundError, KeyError, ValueError: no such weights, no categories, or categories or sizes that do not fit.
    """
    try:
        source = prediction_source(cfg, recorded_source(cfg.MODEL.WEIGHTS))
    except KeyError:  # no categories, perhaps since there is no such file
        refuse_missing_weights(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS", needed=False)
        raise
    fill_in_num_classes(cfg, source)
    if source is not None:
        check_head_sizes(cfg, source)
    return source


def read_config(config_file: str, opts: list[str], *, trained: bool = False) -> CfgNode:
    """Config, as it is and not frozen, of a name that
    :func:`~panoptic_fpn_ext.engine.checkpoints.model_files.find_model` knows.

    With ``trained``, ``MODEL.WEIGHTS`` is what comes with the name unless ``opts`` set it. Errors as
    :func:`load_config`.
    """
    config_file, weights = find_model(config_file)
    if config_file.endswith(".py"):
        raise ValueError(as_lazy_config(config_file))
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    merge_file(cfg, config_file)
    if trained and weights:
        cfg.MODEL.WEIGHTS = weights
    merge_pairs(cfg, opts)
    scale_schedule(cfg, fixed=[str(key) for key in opts[::2]])
    set_pixel_bound(cfg.INPUT.get("MAX_IMAGE_PIXELS", 0))
    cfg.MODEL.WEIGHTS = checkpoint_path(cfg.MODEL.WEIGHTS)
    use_available_device(cfg)
    return cfg
