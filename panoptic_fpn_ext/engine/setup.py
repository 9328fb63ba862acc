"""From the command line to a config: arguments and steps that all projects share."""

import argparse
import logging
import os

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup

from ..config import add_panoptic_fpn_ext_config
from ..data import register_coco_panoptic
from ..data.synthetic_street import register_synthetic_street
from .checks import check_config, fill_in_num_classes

__all__ = ["argument_parser", "register_datasets", "setup"]

_REGISTER = ("NAME", "IMAGE_ROOT", "PANOPTIC_ROOT", "PANOPTIC_JSON")


def argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """detectron2's arguments, plus ``--register`` for data sets in COCO panoptic format."""
    parser = default_argument_parser(epilog)
    add_register_argument(parser)
    return parser


def add_register_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--register NAME IMAGE_ROOT PANOPTIC_ROOT PANOPTIC_JSON`` to a parser."""
    parser.add_argument(
        "--register",
        nargs=4,
        action="append",
        default=[],
        metavar=_REGISTER,
        help="register a data set in COCO panoptic format under NAME, for DATASETS.TRAIN and DATASETS.TEST; may be repeated. "
        "~ and environment variables in the paths are resolved.",
    )


def register_datasets(cfg: CfgNode, registrations: list[list[str]]) -> None:
    """Register the data sets of the command line and, if ``cfg`` uses it, the embedded one (which is drawn where it is missing)."""
    for name, *paths in registrations:
        register_coco_panoptic(name, *(os.path.expanduser(os.path.expandvars(path)) for path in paths))
    if any(name.startswith("synthetic_street_") for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        register_synthetic_street()


def setup(args: argparse.Namespace) -> CfgNode:
    """Config of a run, checked and frozen, with logging set up as detectron2's tools do.

    ``MODEL.DEVICE cuda`` becomes ``cpu`` where there is no GPU.
    """
    cfg = load_config(args.config_file, args.opts, args.register)
    default_setup(cfg, args)
    return cfg


def load_config(config_file: str, opts: list[str], registrations: list[list[str]]) -> CfgNode:
    """Config of a file and ``KEY VALUE`` pairs, with data sets registered and head sizes checked, frozen.

    Raises:
        FileNotFoundError, KeyError, ValueError: missing files, unknown data sets or keys, sizes that do not fit.
    """
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    if cfg.TEST.AUG.ENABLED:
        raise ValueError("TEST.AUG.ENABLED is not supported for panoptic outputs; set it to False.")
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logging.getLogger(__name__).warning("No GPU was found: MODEL.DEVICE is set to cpu.")
        cfg.MODEL.DEVICE = "cpu"
    register_datasets(cfg, registrations)
    fill_in_num_classes(cfg)
    check_config(cfg)
    cfg.freeze()
    return cfg
