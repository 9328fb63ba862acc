"""Datasets on the command line, ``--register`` and ``--data``, which converts other formats on first use; and those
that are registered since a run names them."""

import argparse
import logging
import os
import re
from collections.abc import Collection, Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from ..categories import THINGS_AS_OTHER, SemSegSpace
from ..coco_json import read_categories
from ..data import cityscapes_panoptic, describe_coco_panoptic, register_coco_panoptic
from ..data.convert import convert_description, parse_description
from ..data.street.categories import categories as street_categories
from ..data.synthetic_street import SPLITS, register_synthetic_street
from ..utf8 import as_text

__all__ = [
    "USER_NAMES",
    "add_data_argument",
    "add_register_argument",
    "register_categories",
    "register_used_datasets",
    "registrations_of",
    "resolved",
]

logger = logging.getLogger(__name__)

_REGISTER = ("NAME", "IMAGE_ROOT", "PANOPTIC_ROOT", "PANOPTIC_JSON")
# The key of a YAML config, or key=value of a LazyConfig.
_OPTION = re.compile(
    r"(MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)(\.[A-Z0-9_]+)+$|(OUTPUT_DIR|SEED)$"
    r"|(model|dataloader|optimizer|lr_multiplier|train)(\.\w+)+="
)
USER_NAMES = ("user_train", "user_val", "user_test")
"""What configs/User-PanopticSegmentation and ``--data`` call datasets."""


def add_register_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--register NAME IMAGE_ROOT PANOPTIC_ROOT PANOPTIC_JSON`` to a parser."""
    parser.add_argument(
        "--register",
        nargs=4,
        action=_Register,
        default=[],
        metavar=_REGISTER,
        help="register a dataset in COCO panoptic format under NAME, for DATASETS.TRAIN and DATASETS.TEST; may be "
        "repeated. ~ and environment variables in the paths are resolved.",
    )


class _Register(argparse.Action):
    """Collects datasets; refuses one that lacks words, so that it has swallowed config options."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        options = [word for word in values if _OPTION.match(word)]
        if options:
            expected, got = " ".join(_REGISTER), " ".join(values)
            raise argparse.ArgumentError(self, f"expected {expected}, got {got}: {options[0]} is a config option")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--data DESCRIPTION`` to a parser."""
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="DESCRIPTION",
        help="a dataset in any of the formats of `python -m panoptic_fpn_ext.data.convert`, described by its "
        'arguments in one string, such as "coco train.json --things car,person --split 0.9/0.1". It is converted on '
        "first use, and again when its files change. Its parts are registered as user_train, user_val and user_test; "
        "of two descriptions without parts the first is user_train, the second user_val.",
    )


def registrations_of(descriptions: Sequence[str]) -> list[list[str]]:
    """Convert what needs it. Lines that two of them have in common are shown once, details are for ``log.txt``.

    Args:
        descriptions: what ``--data`` got.

    Returns:
        Name, image folder, PNG folder and JSON of each part, as ``--register`` takes them.

    Raises:
        ValueError: a description that is none or does not fit its files, or more parts of one name than one.
        OSError: a file that cannot be read or written.
    """
    found: dict[str, list[str]] = {}
    seen: set[str] = set()

    def show(line: str) -> None:
        logger.log(logging.DEBUG if line in seen else logging.INFO, line)
        seen.add(line)

    for text in descriptions:
        for part, path in convert_description(parse_description(text), show, logger.debug).items():
            name = f"user_{part}" if part != "all" else next(name for name in USER_NAMES if name not in found)
            if name in found:
                raise ValueError(f"--data: two datasets would be {name}: {found[name][-1]} and {path}.")
            twins = [other for other, row in found.items() if row[-1] == path]
            if twins:
                raise ValueError(
                    f"--data: {twins[0]} and {name} would both be {path}. Name a folder by --output for each."
                )
            folder = os.path.dirname(path)
            found[name] = [name, os.path.join(folder, "images"), os.path.splitext(path)[0], path]
    return [found[name] for name in sorted(found, key=_order)]


def register_used_datasets(
    used: Collection[str], registrations: list[list[str]], sem_seg_space: SemSegSpace = THINGS_AS_OTHER
) -> None:
    """Register the datasets of the command line and, if a run uses them, the embedded one, drawn if it is missing, and
    Cityscapes, prepared if need be.

    Args:
        used: names of the datasets that the run uses.
        registrations: ``(name, image_root, panoptic_root, panoptic_json)`` each.
        sem_seg_space: of their semantic labels, see :mod:`panoptic_fpn_ext.categories`.
    """
    for name, *paths in registrations:
        register_coco_panoptic(as_text(name), *(resolved(path) for path in paths), sem_seg_space=sem_seg_space)
    if any(name.startswith("synthetic_street_") for name in used):
        register_synthetic_street()
    wanted = {f"cityscapes_panoptic_{split}": split for split in cityscapes_panoptic.SPLITS}
    splits = [split for name, split in wanted.items() if name in used and name not in DatasetCatalog]
    if splits:
        cityscapes_panoptic.register_cityscapes_panoptic(splits=splits)


def register_categories(registrations: list[list[str]], sem_seg_space: SemSegSpace = THINGS_AS_OTHER) -> None:
    """Make the categories of the command line's datasets, of the embedded one and of Cityscapes known: all that
    prediction needs.

    Only the JSON files are read; folders need not exist, and nothing is drawn. Arguments are those of
    :func:`register_used_datasets`.
    """
    for name, *_, panoptic_json in registrations:
        categories = read_categories(resolved(panoptic_json))
        describe_coco_panoptic(as_text(name), categories, sem_seg_space=sem_seg_space)
    for split in SPLITS:
        describe_coco_panoptic(f"synthetic_street_{split}", street_categories())
    cityscapes_panoptic.describe_cityscapes_panoptic()


def resolved(path: str) -> str:
    """A path of the command line with ``~`` and environment variables resolved."""
    return os.path.expanduser(os.path.expandvars(path))


def _order(name: str) -> int:
    return USER_NAMES.index(name) if name in USER_NAMES else len(USER_NAMES)
