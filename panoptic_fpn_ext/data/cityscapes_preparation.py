"""Panoptic PNGs and JSON of Cityscapes, made from the ``instanceIds`` PNGs of the standard download.

They are those of ``createPanopticImgs`` of cityscapesscripts (category ids 7 … 33), in a fraction of its time: segment
ids are instance ids; a group of things (an id below 1000, "cargroup") is a crowd; labels that Cityscapes ignores are
void.
"""

from __future__ import annotations

import glob
import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import file_lock
from tqdm import tqdm

from ..cityscapes_labels import FIRST_INSTANCE, IGNORED, categories, label_of, read_instance_ids
from ..index_masks import index_boxes
from ..panoptic_map import run_starts, segment_index_map
from ..panoptic_png import write_panoptic_png

__all__ = ["instance_segments", "prepare_cityscapes_panoptic"]

_SUFFIX = "_gtFine_instanceIds.png"
_THINGS = {row["id"]: bool(row["isthing"]) for row in categories()}


def prepare_cityscapes_panoptic(root: str, split: str) -> None:
    """Make ``gtFine/cityscapes_panoptic_{split}.json`` and its folder of PNGs, unless the JSON is there.

    The JSON comes last and every file as a whole, so what an interruption leaves is made again; of several processes
    one works and the others wait.

    Args:
        root: folder of the standard download, with ``gtFine``.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        FileNotFoundError: there is no ground truth for the split.
        ValueError: a PNG is broken, or has an id that Cityscapes does not know.
        OSError: ``gtFine`` cannot be written to.
    """
    folder = os.path.join(os.path.abspath(PathManager.get_local_path(root)), "gtFine", f"cityscapes_panoptic_{split}")
    if os.path.isfile(f"{folder}.json"):
        return
    paths = _instance_files(root, split)
    try:
        with file_lock(folder):
            if not os.path.isfile(f"{folder}.json"):
                _write(paths, folder)
    except OSError as error:
        raise OSError(
            f"Cannot write the panoptic ground truth to {folder} ({error}). Make gtFine writable, or make a folder of "
            "your own with links to leftImg8bit and to what gtFine holds."
        ) from error


def _instance_files(root: str, split: str) -> list[str]:
    pattern = os.path.join(glob.escape(PathManager.get_local_path(root)), "gtFine", split, "*")
    paths = sorted(glob.glob(os.path.join(pattern, f"*{_SUFFIX}")))
    if not paths:
        others = sorted({path.split("_gtFine_")[-1] for path in glob.glob(os.path.join(pattern, "*_gtFine_*"))})
        found = f"there are only {', '.join(others)}" if others else "there is no such file"
        raise FileNotFoundError(
            f"Cityscapes needs {os.path.join(root, 'gtFine', split, 'CITY', f'*{_SUFFIX}')}, but {found}. Unpack "
            "gtFine_trainvaltest.zip of the standard download into that folder."
        )
    return paths


def _write(paths: list[str], folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    images, annotations = [], []
    for path in tqdm(paths, desc=f"Panoptic ground truth into {folder}", unit="image", disable=None):
        image_id = os.path.basename(path).removesuffix(_SUFFIX)
        png_name = f"{image_id}_gtFine_panoptic.png"
        try:
            ids = read_instance_ids(path)
            panoptic, segments = instance_segments(ids)
        except ValueError as error:
            raise ValueError(f"Instance PNG {path}: {error}") from error
        write_panoptic_png(f"{folder}/{png_name}", panoptic)
        height, width = ids.shape
        # No such image exists: the official tool's slip, which readers of its JSON know how to mend.
        file_name = f"{image_id}_gtFine_leftImg8bit.png"
        images.append({"id": image_id, "width": width, "height": height, "file_name": file_name})
        annotations.append({"image_id": image_id, "file_name": png_name, "segments_info": segments})
    content = {"images": images, "annotations": annotations, "categories": categories()}
    with open(f"{folder}.json.tmp", "w", encoding="utf-8") as f:
        json.dump(content, f, sort_keys=True, indent=4)
    os.replace(f"{folder}.json.tmp", f"{folder}.json")


def instance_segments(ids: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], list[dict[str, Any]]]:
    """Panoptic map and COCO ``segments_info`` of instance ids.

    Args:
        ids: int32 (H, W), see :func:`read_instance_ids`.

    Returns:
        The ids with 0 for ignored labels, and id, category_id (7 … 33), area (px), bbox [x, y, width, height] (px) and
        iscrowd of each segment, by id.

    Raises:
        ValueError: labels that are none of Cityscapes'.
    """
    present = np.unique(ids.reshape(-1)[run_starts(ids)]).tolist()
    labels = {i: label_of(i) for i in present}
    unknown = [i for i, label in labels.items() if label not in IGNORED and label not in _THINGS]
    if unknown:
        raise ValueError(f"ids {unknown[:10]} are none of Cityscapes' labels.")
    kept = [i for i in present if labels[i] not in IGNORED]
    index_map = segment_index_map(ids, kept)
    areas = np.bincount(index_map.reshape(-1), minlength=len(kept) + 1).tolist()
    boxes = index_boxes(index_map, len(kept)).astype(int).tolist()
    segments = []
    for segment_id, area, (x0, y0, x1, y1) in zip(kept, areas[1:], boxes[1:], strict=True):
        segments.append(
            {
                "id": segment_id,
                "category_id": labels[segment_id],
                "area": area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": int(segment_id < FIRST_INSTANCE and _THINGS[labels[segment_id]]),
            }
        )
    return np.where(index_map > 0, ids, 0), segments
