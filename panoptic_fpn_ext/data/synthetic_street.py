"""The embedded dataset: street scenes drawn by a seeded generator, in COCO panoptic format.

``register_synthetic_street()`` makes ``synthetic_street_train`` and ``synthetic_street_val`` known
to detectron2 and draws them first if they are not on disk.
``python -m panoptic_fpn_ext.data.synthetic_street --root DIR`` only draws. The same seed and size
give the same pixels and the same JSON on any machine.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from iopath.common.file_io import file_lock
from tqdm import tqdm

from ..command import command_parser, run_command, whole
from ..panoptic_png import write_panoptic_png
from .coco_panoptic import register_coco_panoptic
from .street.categories import categories
from .street.scene import draw_street

__all__ = [
    "SPLITS",
    "StreetSettings",
    "default_root",
    "make_synthetic_street",
    "register_synthetic_street",
]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
_SAID_EVERY = 300  # images
GENERATOR_VERSION = 1  # raised with every change of a pixel or of the JSON
_LICENSE = {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


@dataclass(frozen=True)
class StreetSettings:
    """What determines the dataset: number of images, size in pixels, seed."""

    num_train: int = 1200
    num_val: int = 100
    height: int = 160
    width: int = 256
    seed: int = 0

    def info(self) -> dict[str, int]:
        """The contents of ``info.json``."""
        return {"generator_version": GENERATOR_VERSION, **asdict(self)}


def default_root() -> str:
    """``$DETECTRON2_DATASETS/synthetic_street``; that variable defaults to ``datasets``."""
    return os.path.join(os.getenv("DETECTRON2_DATASETS", "datasets"), "synthetic_street")


def register_synthetic_street(root: str | None = None) -> None:
    """Register ``synthetic_street_train`` and ``_val``; draw them if ``root`` has none yet.

    Args:
        root: folder of the dataset; :func:`default_root` if not given.

    Raises:
        ValueError: ``root`` holds something else, as :func:`make_synthetic_street`.
    """
    root = default_root() if root is None else root
    make_synthetic_street(root)
    for split in SPLITS:
        register_coco_panoptic(
            f"synthetic_street_{split}",
            image_root=os.path.join(root, split),
            panoptic_root=os.path.join(root, f"panoptic_{split}"),
            panoptic_json=os.path.join(root, "annotations", f"panoptic_{split}.json"),
        )


def make_synthetic_street(root: str, settings: StreetSettings = StreetSettings()) -> None:
    """Draw the dataset into ``root``, unless it is there already.

    Safe against interruption and several processes: the files are made in ``<root>.part``, which
    becomes ``root`` when all are written; whoever comes second waits.

    Args:
        root: a folder that does not exist, is empty, or holds this very dataset.
        settings: what to draw.

    Raises:
        ValueError: ``root`` holds a dataset of other settings or of another generator version,
            or other files.
    """
    root = os.path.abspath(root)
    if _is_complete(root, settings):
        return
    os.makedirs(os.path.dirname(root), exist_ok=True)
    with file_lock(root):
        if not _is_complete(root, settings):
            _draw_and_rename(root, settings)


def _is_complete(root: str, settings: StreetSettings) -> bool:
    """Is the wanted dataset in ``root``? Missing or empty: False; anything else: ValueError."""
    if not os.path.isdir(root) or not os.listdir(root):
        return False
    found = _read_text(os.path.join(root, "info.json"))
    wanted = json.dumps(settings.info())
    if found != wanted:
        raise ValueError(
            f"{root} should hold a synthetic street with {wanted}, but "
            + (f"its info.json says {found}." if found is not None else "it has no info.json.")
            + " Delete that folder to have it drawn again, or choose another one"
            + " (environment variable DETECTRON2_DATASETS, or --root)."
        )
    return True


def _draw_and_rename(root: str, settings: StreetSettings) -> None:
    part = f"{root}.part"
    shutil.rmtree(part, ignore_errors=True)
    counts = (settings.num_train, settings.num_val)
    with tqdm(
        total=sum(counts), desc=f"Drawing the synthetic street into {root}", unit="image", disable=None
    ) as progress:
        for split, count in enumerate(counts):
            _write_split(part, split, count, settings, progress)
    _write_json(os.path.join(part, "info.json"), settings.info())
    if os.path.isdir(root):
        os.rmdir(root)
    os.rename(part, root)


def _write_split(root: str, split: int, count: int, settings: StreetSettings, progress: tqdm[Any]) -> None:
    name = SPLITS[split]
    for folder in (name, f"panoptic_{name}", "annotations"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        file_name = f"street_{name}_{index:06d}.png"
        segments = _write_pair(root, split, index, file_name, settings)
        image_id = split * 1_000_000 + index + 1
        size = {"width": settings.width, "height": settings.height}
        images.append({"id": image_id, "file_name": file_name, **size})
        annotations.append({"image_id": image_id, "file_name": file_name, "segments_info": segments})
        progress.update()
        if progress.disable and ((index + 1) % _SAID_EVERY == 0 or index + 1 == count):  # no terminal
            logger.info(f"Drawn: {index + 1} of {count} images of {name}")
    content = _coco_panoptic(images, annotations, settings)
    _write_json(os.path.join(root, "annotations", f"panoptic_{name}.json"), content)


def _write_pair(root: str, split: int, index: int, file_name: str, settings: StreetSettings) -> list[dict[str, Any]]:
    """Write an image and its panoptic PNG, return its ``segments_info``."""
    street = draw_street(settings.seed, split, index, settings.height, settings.width)
    # Level 1: decoded pixels are the same at every level, and this one is several times faster.
    bgr = np.ascontiguousarray(street.image[..., ::-1])
    path = os.path.join(root, SPLITS[split], file_name)
    if not cv2.imwrite(path, bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"Could not write {path}.")
    write_panoptic_png(os.path.join(root, f"panoptic_{SPLITS[split]}", file_name), street.ids)
    return street.segments


def _coco_panoptic(images: list[Any], annotations: list[Any], settings: StreetSettings) -> dict[str, Any]:
    return {
        "info": {"description": "Synthetic street scenes", **settings.info()},
        "licenses": [_LICENSE],
        "images": images,
        "annotations": annotations,
        "categories": categories(),
    }


def _write_json(path: str, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as f:
        json.dump(content, f)


def _read_text(path: str) -> str | None:
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as f:
        return f.read()


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a dataset from the command line."""
    default = StreetSettings()
    parser = command_parser(
        "Draw the synthetic street dataset in COCO panoptic format.",
        "python -m panoptic_fpn_ext.data.synthetic_street --root small_street --num-train 40 --num-val 10",
        prog="python -m panoptic_fpn_ext.data.synthetic_street",
    )
    parser.add_argument("--root", default=default_root(), help="folder to write to (default: %(default)s)")
    for key, value in asdict(default).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=whole(0), default=value, help="default: %(default)s")
    options = vars(parser.parse_args(arguments))
    root = options.pop("root")
    make_synthetic_street(root, StreetSettings(**options))
    print(f"The synthetic street is in {os.path.abspath(root)}")  # noqa: T201


if __name__ == "__main__":
    run_command(main)
