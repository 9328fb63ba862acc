"""Results of a whole dataset: read piece by piece, merged by several processes, written as COCO panoptic ones."""

import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..coco_json import category_rows, load_json
from ..coco_records import ids_shown, image_key
from ..command import num_cores
from ..image_files import read_labels
from ..panoptic_png import write_panoptic_png
from ..whole_files import inside, keep_inputs, whole_file
from .image import Mask, combine_image, decode

__all__ = ["CombineOptions", "combine_files"]

logger = logging.getLogger(__name__)

_CHUNK = 2**20
_SPACE = " \t\r\n"
# Values of label maps that stand for no category, besides those that a dataset has.
_NO_LABEL = {0, 255, 65535}

Row = dict[str, Any]


@dataclass(frozen=True)
class CombineOptions:
    """Thresholds, with the defaults of panopticapi.

    ``score_threshold``: instances with lower scores are left out. ``overlap_threshold``, ``stuff_area_threshold``: see
    :func:`.combine_image`.
    """

    score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area_threshold: float = 64 * 64


def combine_files(
    instances: str,
    semantics: str,
    images: str,
    output: str,
    *,
    categories: str | None = None,
    folder: str | None = None,
    options: CombineOptions = CombineOptions(),
    processes: int = 0,
    show_progress: bool = True,
) -> int:
    """Merge instance and semantic results, as panopticapi's ``combine_predictions`` does, with the same pixels.

    Args:
        instances: JSON of COCO's results format: a list with ``image_id``, ``category_id``, ``score`` and
            ``segmentation``.
        semantics: the same of regions, without scores; or a folder of label maps, PNGs named like the images, whose
            values are category ids.
        images: JSON with the ``images`` to combine; ``info`` and ``licenses`` are handed on.
        output: COCO panoptic JSON to write.
        categories: JSON of COCO's panoptic categories, a list or an object with ``categories``; by default those of
            ``images``.
        folder: of the PNGs; by default ``output`` without ``.json``.
        options: thresholds.
        processes: how many; 0 for one a core.
        show_progress: whether bars are drawn.

    Returns:
        How many images.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: results that are not in that format or of categories that there are not; or what would be
            written is one of the files that are read.
    """
    folder = folder or os.path.splitext(output)[0]
    keep_inputs([output, folder], [instances, semantics, images, os.path.splitext(images)[0], categories])
    content = load_json(images, "Images JSON")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f"{images} must be an object with a list 'images', as COCO's annotation files.")
    rows = _read_categories(categories or images)
    isthing = {row["id"]: bool(row["isthing"]) for row in rows}
    os.makedirs(folder, exist_ok=True)
    work = _Images(content["images"], folder, options, isthing, images)
    _read_results(work, instances, semantics, show_progress)
    processes = min(processes or num_cores(), len(work))
    loader = DataLoader(work, batch_size=None, num_workers=processes if processes > 1 else 0, collate_fn=_as_it_is)
    bar = tqdm(loader, total=len(work), desc="Combine", unit="image", disable=not show_progress)
    annotations = list(bar)
    with whole_file(output) as f:
        json.dump({**content, "annotations": annotations, "categories": rows}, f)
    return len(annotations)


def _read_results(work: "_Images", instances: str, semantics: str, show_progress: bool) -> None:
    """The results of the images that are combined, by image."""
    wanted = {image_key(image["id"]) for image in work.images}
    found: Counter[tuple[str, bool]] = Counter()  # by file and whether the image is one of those
    for row in _results(instances, ("image_id", "category_id", "score", "segmentation"), show_progress):
        _refuse_odd_score(row, instances)
        key = image_key(row["image_id"])
        found[instances, key in wanted] += 1
        if row["score"] >= work.options.score_threshold and key in wanted:
            _refuse_unknown(row, work.isthing, instances)
            work.instances[key].append(row)
    if os.path.isdir(semantics):
        work.label_maps = semantics
    else:
        for row in _results(semantics, ("image_id", "category_id", "segmentation"), show_progress):
            _refuse_unknown(row, work.isthing, semantics)
            key = image_key(row["image_id"])
            found[semantics, key in wanted] += 1
            if key in wanted and not work.isthing[row["category_id"]]:
                work.semantics[key].append(row)
    foreign = {path: number for (path, is_wanted), number in found.items() if not is_wanted}
    if foreign and len(foreign) == len(found) and not work.label_maps:
        raise ValueError(f"No result in {' and '.join(foreign)} is of an image that {work.source} lists.")
    for path, number in foreign.items():
        logger.warning(f"{number} results in {path} are of images that {work.source} does not list; left out.")


def _refuse_odd_score(row: Row, path: str) -> None:
    score = row["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"{path}: a result of image {row['image_id']!r} has the score {score!r}; a number is needed.")


def _as_it_is(one: Any) -> Any:
    return one


@dataclass
class _Images(Dataset[Any]):
    """Images by number; to get one is to combine it and to write its PNG."""

    images: Sequence[Row]
    folder: str
    options: CombineOptions
    isthing: Mapping[int, bool]
    source: str
    instances: dict[Any, list[Row]] = field(default_factory=lambda: defaultdict(list))
    semantics: dict[Any, list[Row]] = field(default_factory=lambda: defaultdict(list))
    label_maps: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Row:
        image = self.images[index]
        size = (int(image["height"]), int(image["width"]))
        best_first = sorted(self.instances.get(image_key(image["id"]), ()), key=lambda row: -row["score"])
        ids, segments = combine_image(
            _masks(best_first, size),
            self._regions(image, size),
            size,
            self.options.overlap_threshold,
            self.options.stuff_area_threshold,
        )
        name = f"{os.path.splitext(image['file_name'])[0]}.png"
        path = inside(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_panoptic_png(path, ids)
        return {"image_id": image["id"], "file_name": name, "segments_info": segments}

    def _regions(self, image: Row, size: tuple[int, int]) -> Iterator[tuple[int, Mask]]:
        """Stuff of an image."""
        if not self.label_maps:
            yield from _masks(self.semantics.get(image_key(image["id"]), ()), size)
            return
        path = inside(self.label_maps, f"{os.path.splitext(image['file_name'])[0]}.png")
        labels = read_labels(path)
        if labels.shape != size:
            raise ValueError(f"Label map {path} has {labels.shape} (height, width), its image {size}.")
        found = np.unique(labels).tolist()
        if unknown := set(found) - self.isthing.keys() - _NO_LABEL:
            raise ValueError(
                f"Label map {path} has values {ids_shown(unknown)}, which are no category ids; these are "
                f"{ids_shown(self.isthing)}. Values must be category ids of the dataset, 0 or 255 where there is none."
            )
        for category_id in found:
            if not self.isthing.get(category_id, True):
                yield category_id, labels == category_id


def _masks(rows: Collection[Row], size: tuple[int, int]) -> Iterator[tuple[int, Mask]]:
    for row in rows:
        try:
            yield row["category_id"], decode(row["segmentation"], size)
        except ValueError as error:
            raise ValueError(
                f"A result of image {row['image_id']!r}, category {row['category_id']}: {error}."
            ) from error


def _read_categories(path: str) -> list[Row]:
    content = load_json(path, "Categories JSON")
    found = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(found, list) or not all(isinstance(row, dict) and "isthing" in row for row in found) or not found:
        raise ValueError(
            f"{path} must list COCO's panoptic categories, each with id, name and isthing; name a file that does by "
            "--categories."
        )
    return category_rows(found, path)


def _refuse_unknown(row: Row, isthing: Mapping[int, bool], path: str) -> None:
    if row["category_id"] not in isthing:
        raise ValueError(
            f"{path}: a result of image {row['image_id']!r} has category {row['category_id']}, which is not in "
            f"{ids_shown(isthing)}."
        )


def _results(path: str, keys: Sequence[str], show_progress: bool) -> Iterator[Row]:
    """Rows of a results JSON, one after the other: memory holds what the caller keeps."""
    local = PathManager.get_local_path(path)
    if not os.path.isfile(local):
        raise FileNotFoundError(f"Results {path} do not exist.")
    with tqdm(
        total=Path(local).stat().st_size, desc=f"Read {path}", unit="B", unit_scale=True, disable=not show_progress
    ) as bar:
        for number, row in enumerate(_rows(local, path, bar.update)):
            missing = [key for key in keys if not isinstance(row, dict) or key not in row]
            if missing:
                raise ValueError(f"{path}: row {number} lacks {missing}; results are a list of rows with {[*keys]}.")
            yield row


def _rows(local: str, path: str, read: Callable[[int], Any]) -> Iterator[Any]:
    """Items of a JSON list, decoded as the file is read."""
    decoder = json.JSONDecoder()
    with open(local, encoding="utf-8-sig") as f:
        text, position, is_open = "", 0, False

        def more() -> bool:
            nonlocal text, position
            piece = f.read(_CHUNK)
            read(len(piece))
            text, position = text[position:] + piece, 0
            return bool(piece)

        while True:
            while position < len(text) and text[position] in _SPACE + (",[" if not is_open else ","):
                is_open = is_open or text[position] == "["
                position += 1
            if position == len(text):
                if not more():
                    raise ValueError(f"{path} is no list of results, or it is cut off.")
                continue
            if not is_open:
                raise ValueError(f"{path} is no list of results: it begins with {text[position : position + 20]!r}.")
            if text[position] == "]":
                return
            try:
                row, end = decoder.raw_decode(text, position)
            except ValueError as error:
                if not more():
                    raise ValueError(f"{path} is no list of results, or it is cut off ({error}).") from error
                continue
            yield row
            position = end
