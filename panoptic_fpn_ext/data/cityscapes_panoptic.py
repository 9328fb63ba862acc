"""Cityscapes: registration of the standard download, whose panoptic ground truth is prepared on first use.

``python -m panoptic_fpn_ext.data.cityscapes_panoptic --root DIR`` only prepares it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from detectron2.utils.file_io import PathManager

from .. import cityscapes_labels
from ..categories import ALL_CLASSES, PanopticCategories
from ..coco_json import read_categories
from ..command import command_parser, run_command
from .cityscapes_preparation import prepare_cityscapes_panoptic
from .coco_panoptic import check_files_exist, panoptic_dicts
from .panoptic_catalog import CITYSCAPES_PANOPTIC, class_metadata, describe_panoptic, register_panoptic

__all__ = [
    "SPLITS",
    "default_root",
    "describe_cityscapes_panoptic",
    "load_cityscapes_panoptic",
    "register_cityscapes_panoptic",
]

SPLITS = ("train", "val")
_SUFFIX = "_leftImg8bit.png"

logger = logging.getLogger(__name__)


def default_root() -> str:
    """``$DETECTRON2_DATASETS/cityscapes``, where detectron2 has it too; that variable defaults to ``datasets``."""
    return os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "cityscapes")


def register_cityscapes_panoptic(root: str | None = None, splits: Sequence[str] | None = None) -> None:
    """Register ``cityscapes_panoptic_train`` and ``_val``.

    The semantic space has all 19 classes in the order of the train ids, as the paper has it on Cityscapes. Ground
    truth that cityscapesscripts prepared is read, with category ids or with train ids; where there is none, it is made.

    Args:
        root: folder of ``leftImg8bit`` and ``gtFine`` as downloaded; :func:`default_root` if not given.
        splits: which ones; those of which there is ground truth if not given.

    Raises:
        FileNotFoundError, ValueError, OSError: as :func:`prepare_cityscapes_panoptic`; also if the names stand
            for other data.
    """
    root = default_root() if root is None else str(root)
    for split in _splits(root) if splits is None else splits:
        _register_split(root, split)


def _splits(root: str) -> list[str]:
    """Those of train and val that have ground truth."""
    ground_truth = os.path.join(root, "gtFine")
    splits = [split for split in SPLITS if PathManager.isdir(os.path.join(ground_truth, split))]
    if not splits:
        raise FileNotFoundError(
            f"There is no Cityscapes in {root}: neither {ground_truth}/train nor {ground_truth}/val exists. Unpack "
            "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there."
        )
    return splits


def _register_split(root: str, split: str) -> None:
    panoptic_root = os.path.join(root, "gtFine", f"cityscapes_panoptic_{split}")
    with_train_ids = f"{panoptic_root}_trainId"
    if PathManager.isfile(f"{with_train_ids}.json") and not PathManager.isfile(f"{panoptic_root}.json"):
        panoptic_root = with_train_ids
    else:
        prepare_cityscapes_panoptic(root, split)
    image_root, panoptic_json = os.path.join(root, "leftImg8bit", split), f"{panoptic_root}.json"
    categories = PanopticCategories(read_categories(panoptic_json), ALL_CLASSES)
    files = {"image_root": image_root, "panoptic_root": panoptic_root, "panoptic_json": panoptic_json}
    register_panoptic(
        f"cityscapes_panoptic_{split}",
        lambda: load_cityscapes_panoptic(image_root, panoptic_root, panoptic_json, categories),
        {
            **class_metadata(categories, CITYSCAPES_PANOPTIC),
            **files,
            "gt_dir": os.path.join(root, "gtFine", split),  # what detectron2 calls it, for the official evaluation
        },
    )


def describe_cityscapes_panoptic() -> None:
    """Make the classes of ``cityscapes_panoptic_train`` and ``_val`` known without any file, to predict and to draw."""
    categories = PanopticCategories(cityscapes_labels.categories(), ALL_CLASSES)
    for split in SPLITS:
        describe_panoptic(f"cityscapes_panoptic_{split}", class_metadata(categories, CITYSCAPES_PANOPTIC))


def load_cityscapes_panoptic(
    image_root: str, panoptic_root: str, panoptic_json: str, categories: PanopticCategories
) -> list[dict[str, Any]]:
    """Read a split into detectron2's standard dicts, as ``load_coco_panoptic`` gives them.

    Args:
        image_root: ``leftImg8bit/SPLIT``, with a folder for each city.
        panoptic_root, panoptic_json: what cityscapesscripts or :func:`prepare_cityscapes_panoptic` made.
        categories: those of the JSON.

    Raises:
        FileNotFoundError: images or PNGs are missing; the first ten are named.
        ValueError: the JSON is not in COCO panoptic format.
    """
    images = _images(image_root)
    dicts = panoptic_dicts(image_root, panoptic_root, panoptic_json, categories)
    # The JSON's own names lead nowhere: it has neither the cities' folders nor the images' endings.
    dicts = [{**d, "file_name": images.get(d["image_id"], _usual_place(image_root, d["image_id"]))} for d in dicts]
    check_files_exist(dicts)
    if len(dicts) < len(images):
        logger.warning(
            f"{panoptic_json} does not list {len(images) - len(dicts)} of {len(images)} images in {image_root}; "
            "they are left out. If it is older than they are, delete it to have it made again."
        )
    return dicts


def _images(image_root: str) -> dict[str, str]:
    """Paths of the images in the cities' folders, by id (``CITY_SEQUENCE_FRAME``)."""
    if not PathManager.isdir(image_root):
        raise FileNotFoundError(
            f"Folder {image_root} with the images of Cityscapes does not exist. Unpack "
            "leftImg8bit_trainvaltest.zip of the standard download there."
        )
    cities = [os.path.join(image_root, city) for city in sorted(PathManager.ls(image_root))]
    files = [os.path.join(city, name) for city in cities if PathManager.isdir(city) for name in PathManager.ls(city)]
    return {os.path.basename(f).removesuffix(_SUFFIX): f for f in files if f.endswith(_SUFFIX)}


def _usual_place(image_root: str, image_id: str) -> str:
    return os.path.join(image_root, str(image_id).split("_")[0], f"{image_id}{_SUFFIX}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the panoptic ground truth from the command line."""
    parser = command_parser(
        "Make Cityscapes' panoptic PNGs and JSON from its instance PNGs.",
        "python -m panoptic_fpn_ext.data.cityscapes_panoptic --root datasets/cityscapes",
        prog="python -m panoptic_fpn_ext.data.cityscapes_panoptic",
    )
    parser.add_argument("--root", default=default_root(), help="folder of the standard download (default: %(default)s)")
    root = parser.parse_args(arguments).root
    for split in _splits(root):
        prepare_cityscapes_panoptic(root, split)
        print(f"{os.path.join(root, 'gtFine', f'cityscapes_panoptic_{split}.json')} is there.")  # noqa: T201


if __name__ == "__main__":
    run_command(main)
