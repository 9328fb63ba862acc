"""What a report is of: images with their ground truth and predictions, as files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..coco_json import image_key, read_panoptic, read_predictions
from ..evaluation.problems import Problems
from ..image_files import read_image
from ..panoptic_png import read_panoptic_png
from .html import category_colors

__all__ = ["ImageFiles", "SegmentFile", "Source", "source_of_files"]


class SegmentFile(NamedTuple):
    """A panoptic map: path of its PNG, and its segments (``id``, ``category_id`` as dataset id, …)."""

    path: str
    segments: Sequence[Mapping[str, Any]]

    def read(self) -> npt.NDArray[np.integer]:
        """Segment ids, integers (H, W)."""
        return read_panoptic_png(self.path)


@dataclass(frozen=True)
class ImageFiles:
    """One image: ``image_id`` in the JSON, its name, its path where it is there, ground truth, one map a model."""

    image_id: Any
    name: str
    path: str | None
    truth: SegmentFile | None
    predictions: Sequence[SegmentFile]

    def read(self) -> npt.NDArray[np.uint8] | None:
        """The image, uint8 (H, W, 3) RGB, None where there is none."""
        return None if self.path is None else read_image(self.path, "RGB")


@dataclass(frozen=True)
class Source:
    """Images by position in the ground truth's JSON, or in that of the predictions where there is no ground truth.

    ``models``: names of those whose predictions these are. ``categories``: those of the JSON.
    """

    images: Sequence[ImageFiles]
    categories: Sequence[Mapping[str, Any]]
    models: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_truth(self) -> bool:
        """Whether there is a ground truth."""
        return bool(self.images) and self.images[0].truth is not None

    @cached_property
    def colors(self) -> list[str]:
        """``#rrggbb`` by category: steady from run to run."""
        return list(category_colors({row["id"]: row for row in self.categories}).values())

    @cached_property
    def category_index(self) -> dict[int, int]:
        """Dataset id → index in ``categories``."""
        return {row["id"]: index for index, row in enumerate(self.categories)}


def source_of_files(
    gt_json: str | None,
    predictions: Sequence[str],
    *,
    images: str | None = None,
    gt_folder: str | None = None,
    pred_folders: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Source:
    """Results on disk, of any model, in COCO's panoptic format.

    Args:
        gt_json: the ground truth's JSON, None where there is none.
        predictions: JSONs, one a model; without a ground truth the first one's images and categories count.
        images: folder of the images; without it segments are shown on grey.
        gt_folder, pred_folders: of the PNGs; by default the JSONs' paths without ``.json``.
        names: of the models; by default made from the paths.

    Raises:
        FileNotFoundError: a JSON or a folder is absent.
        ValueError: a JSON is not in that format, or predictions are wrong or missing.
    """
    folders = [_folder(path, given) for path, given in _paired(predictions, pred_folders)]
    names = list(names) or _model_names(predictions)
    if len(set(names)) != len(predictions):
        raise ValueError(f"Each of the {len(predictions)} models needs a name of its own, got {', '.join(names)}.")
    if images is not None and not os.path.isdir(images):
        raise FileNotFoundError(f"Folder {images} with the images does not exist.")
    if gt_json is None:
        return _predictions_alone(predictions[0], folders[0], images, names[:1])
    content = read_panoptic(gt_json, complete=False)
    gt_folder = _folder(gt_json, gt_folder)
    rows = [{"name": str(row["id"]), **row} for row in content["categories"]]
    maps = [_read(path, folder, rows, gt_json) for path, folder in zip(predictions, folders, strict=True)]
    file_names = _file_names(content)
    found = [
        ImageFiles(
            image_id=annotation["image_id"],
            name=file_names.get(image_key(annotation["image_id"]), annotation["file_name"]),
            path=_image_path(images, file_names.get(image_key(annotation["image_id"])), annotation["file_name"]),
            truth=SegmentFile(os.path.join(gt_folder, annotation["file_name"]), annotation["segments_info"]),
            predictions=[one[image_key(annotation["image_id"])] for one in maps],
        )
        for annotation in content["annotations"]
        if all(image_key(annotation["image_id"]) in one for one in maps)
    ]
    files = {"ground truth": gt_json, **{f"predictions {name}": p for name, p in zip(names, predictions, strict=True)}}
    return Source(found, rows, names, files)


def _paired(paths: Sequence[str], folders: Sequence[str]) -> list[tuple[str, str | None]]:
    if len(folders) > len(paths):
        raise ValueError(f"{len(folders)} folders of predictions for {len(paths)} JSONs: name one for each, in order.")
    return [(path, folders[i] if i < len(folders) else None) for i, path in enumerate(paths)]


def _folder(json_file: str, folder: str | None) -> str:
    found = folder if folder is not None else json_file.removesuffix(".json")
    if not os.path.isdir(found):
        raise FileNotFoundError(
            f"Folder {found} with the panoptic PNGs of {json_file} does not exist. Name it: --gt-folder, --pred-folder."
        )
    return found


def _model_names(paths: Sequence[str]) -> list[str]:
    """What tells the paths apart: the first part from the end in which they differ."""
    parts = [os.path.abspath(path).removesuffix(".json").split(os.sep) for path in paths]
    for back in range(1, min(map(len, parts)) + 1):
        names = [part[-back] for part in parts]
        if len(set(names)) == len(names) and (len(names) > 1 or names[0] not in ("predictions", "inference")):
            return names
    return [f"model {number}" for number in range(1, len(paths) + 1)]


def _read(path: str, folder: str, rows: Sequence[dict[str, Any]], truth: str) -> dict[str, SegmentFile]:
    problems = Problems()
    found = read_predictions(path, rows, truth, lambda _, text: problems.add(text))
    problems.raise_if_any()
    return {
        key: SegmentFile(os.path.join(folder, row["file_name"]), row["segments_info"]) for key, row in found.items()
    }


def _predictions_alone(path: str, folder: str, images: str | None, names: Sequence[str]) -> Source:
    content = read_panoptic(path, complete=True)
    file_names = _file_names(content)
    found = []
    for annotation in content["annotations"]:
        name = file_names[image_key(annotation["image_id"])]
        found.append(
            ImageFiles(
                annotation["image_id"],
                name,
                _image_path(images, name, annotation["file_name"]),
                None,
                [SegmentFile(os.path.join(folder, annotation["file_name"]), annotation["segments_info"])],
            )
        )
    return Source(found, content["categories"], names, {"predictions": path})


def _file_names(content: Mapping[str, Any]) -> dict[str, str]:
    rows = content.get("images") or []
    return {image_key(row["id"]): str(row["file_name"]) for row in rows if isinstance(row, dict) and "file_name" in row}


def _image_path(folder: str | None, name: str | None, png_name: str) -> str | None:
    """The image's file: by the name in the JSON, or as the PNG is called."""
    if folder is None:
        return name if name is not None and os.path.isfile(name) else None
    stem = os.path.splitext(png_name)[0]
    names = [name] if name is not None else []
    names += [stem + suffix for suffix in (".jpg", ".png", ".jpeg")]
    # Cityscapes' images lie in folders of cities, and its panoptic PNGs are called otherwise.
    names.append(f"{stem.removesuffix('_gtFine_panoptic')}_leftImg8bit.png")
    for candidate in names:
        path = os.path.join(folder, candidate)
        if os.path.isfile(path):
            return path
    deeper = _files_below(folder)
    return next((deeper[os.path.basename(one)] for one in names if os.path.basename(one) in deeper), None)


@cache
def _files_below(folder: str) -> dict[str, str]:
    """Paths of the files in subfolders, by name."""
    walked = os.walk(folder)
    next(walked, None)
    return {name: os.path.join(inner, name) for inner, _, files in walked for name in files}
