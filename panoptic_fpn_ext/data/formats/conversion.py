"""From a source in any format to COCO panoptic format: one pass over the images, on all cores.

Every file is written to a temporary name and renamed, the JSON last, so an interrupted conversion is never taken for a
whole one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...command import num_cores
from ...image_files import image_size
from ...panoptic_png import write_panoptic_png
from ...whole_files import whole_file
from .files import MALFORMED
from .labels import Labels
from .regions import Source, SourceImage
from .splits import file_stem, split_images

__all__ = ["EMPTY", "Conversion", "Report", "convert", "place_image", "said", "write_json"]


def said(error: Exception) -> str:
    """An error for people: its own sentence, or what it is about."""
    if isinstance(error, (ValueError, OSError)) and str(error):
        return str(error)
    return f"it lacks {error}" if isinstance(error, KeyError) else f"it is malformed ({error or type(error).__name__})"


EMPTY = "image without a segment"
"""Its example's name in a :class:`Report`."""


@dataclass(frozen=True)
class Conversion:
    """How to convert: all that is not in the source.

    ``split`` has the share of each part by name; ``group`` is a regular expression whose match in an image's name (its
    first group, if it has one) names what must stay together. ``copy`` copies images instead of linking them.
    """

    labels: Labels
    split: Mapping[str, float] = field(default_factory=dict)
    group: str | None = None
    copy: bool = False
    processes: int = 0


@dataclass
class Report:
    """What a conversion found, in pixels and segments; of all images, or of one. ``empty`` are images without one."""

    images: int = 0
    empty: int = 0
    pixels: int = 0
    void: int = 0
    segments: Counter[int] = field(default_factory=Counter)
    area: Counter[int] = field(default_factory=Counter)
    crowds: Counter[int] = field(default_factory=Counter)
    hidden: Counter[int] = field(default_factory=Counter)
    taken: Counter[tuple[int, int]] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Count another report's images too."""
        for name in ("images", "empty", "pixels", "void"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("segments", "area", "crowds", "hidden", "taken", "dropped"):
            getattr(self, name).update(getattr(other, name))
        for reason, example in other.examples.items():
            self.examples.setdefault(reason, example)

    def drop(self, reason: str, example: str, count: int = 1) -> None:
        """Count what was left out."""
        if count:
            self.dropped[reason] += count
            self.examples.setdefault(reason, example)


def convert(source: Source, conversion: Conversion, output: str) -> dict[str, Report]:
    """Write ``output/panoptic_PART.json``, ``output/panoptic_PART/`` and ``output/images/``.

    Without a split, neither the source's nor one asked for, ``_PART`` is left out.

    Args:
        source: what to convert.
        conversion: how.
        output: folder; made if it does not exist.

    Returns:
        What was found, by part.

    Raises:
        ValueError: no image or no segment is left, an expression that matches no group in a name, names of the same
            image twice.
        OSError: the folder cannot be written to.
    """
    if not source.images:
        raise ValueError(f"The source has no annotated image. {'; '.join(source.notes)}".strip())
    reports = {}
    for part, images in split_images(source.images, conversion.split, conversion.group).items():
        reports[part] = _convert_part(images, conversion, output, file_stem(part))
    if not any(report.segments for report in reports.values()):
        whole = Report()
        for report in reports.values():
            whole.add(report)
        reasons = "; ".join([_reasons(whole) or "nothing is annotated", *source.notes])
        raise ValueError(
            f"No image has a segment, such as {source.images[0].path}: {reasons}. Are these its annotations, and is "
            "the table of labels theirs?"
        )
    return reports


def _convert_part(images: Sequence[SourceImage], conversion: Conversion, output: str, name: str) -> Report:
    folder = os.path.join(output, name)
    os.makedirs(folder, exist_ok=True)
    report, rows, annotations = Report(), [], []
    converted = _Converted(images, conversion.labels, output, folder, conversion.copy)
    results = _in_order(converted, conversion.processes)
    for found, row, annotation in tqdm(
        results, total=len(images), desc=f"Convert into {folder}", unit="image", disable=None
    ):
        report.add(found)
        if row is not None:
            rows.append(row)
            annotations.append(annotation)
    if not rows:
        raise ValueError(f"No image could be converted: {_reasons(report) or 'the source lists none'}.")
    content = {"images": rows, "annotations": annotations, "categories": conversion.labels.categories}
    write_json(f"{folder}.json", content)
    return report


def _reasons(report: Report) -> str:
    return "; ".join(f"{why}: {n} (such as {report.examples[why]})" for why, n in report.dropped.most_common())


def write_json(path: str, content: Any) -> None:
    """Write a JSON as a whole or not at all."""
    with whole_file(path) as f:
        json.dump(content, f, ensure_ascii=False)


@dataclass(frozen=True)
class _Converted(Dataset[Any]):
    """Converts an image when it is asked for, in whichever process asks."""

    images: Sequence[SourceImage]
    labels: Labels
    output: str
    folder: str
    copy: bool

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Report, dict[str, Any] | None, dict[str, Any] | None]:
        return _convert_image(index + 1, self.images[index], self.labels, self.output, self.folder, self.copy)


def _in_order(converted: _Converted, processes: int) -> Iterable[Any]:
    """Results in the order of the images, of several processes, few images under way at a time."""
    processes = min(processes or num_cores(), len(converted))
    return DataLoader(converted, batch_size=None, num_workers=processes if processes > 1 else 0, collate_fn=_as_it_is)


def _as_it_is(result: Any) -> Any:
    return result


def _convert_image(
    number: int, image: SourceImage, labels: Labels, output: str, folder: str, copy: bool
) -> tuple[Report, dict[str, Any] | None, dict[str, Any] | None]:
    """One image into the output; the rows of the JSON, or None where it was left out."""
    report = Report()
    target = os.path.join(output, "images", image.name)
    try:
        if image.problem:
            raise ValueError(image.problem)
        file = image.path if image.content is None else _write_image(image.content(), target)
        size = _image_size(file, image.size)
        regions, dropped = image.regions(size) if image.regions else ([], {})
    except MALFORMED as error:
        report.drop("image left out", f"{image.path}: {said(error)}")
        return report, None, None
    for reason, count in dropped.items():
        report.drop(reason, image.path, count)
    painted = labels.paint(regions, size)
    panoptic, segments = painted.panoptic, painted.segments
    png_name = f"{os.path.splitext(image.name)[0]}.png"
    _write_png(os.path.join(folder, png_name), panoptic)
    if image.content is None:
        place_image(image.path, target, copy)
    _count(report, panoptic, segments)
    if not segments:
        report.empty, report.examples[EMPTY] = 1, image.path
    report.taken, report.hidden = painted.taken, painted.hidden
    image_id = number if image.image_id is None else image.image_id
    row = {"id": image_id, "file_name": image.name, "height": size[0], "width": size[1]}
    return report, row, {"image_id": image_id, "file_name": png_name, "segments_info": segments}


def _count(report: Report, panoptic: np.ndarray[Any, Any], segments: Iterable[Mapping[str, Any]]) -> None:
    report.images, report.pixels = 1, panoptic.size
    report.void = int(np.count_nonzero(panoptic == 0))
    for segment in segments:
        report.segments[segment["category_id"]] += 1
        report.area[segment["category_id"]] += segment["area"]
        report.crowds[segment["category_id"]] += segment["iscrowd"]


def _image_size(path: str, annotated: tuple[int, int] | None) -> tuple[int, int]:
    """(H, W) of the file, turned as its EXIF data say; the annotation must agree."""
    height, width = image_size(path)
    if annotated is not None and annotated != (height, width):
        raise ValueError(
            f"the file has {width}×{height} px, its annotation {annotated[1]}×{annotated[0]}: export the annotations "
            "again for these images, or use the images that were annotated"
        )
    return height, width


def _write_png(path: str, panoptic: np.ndarray[Any, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_panoptic_png(path, panoptic)


def _write_image(content: bytes, target: str) -> str:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(f"{target}.tmp", "wb") as f:
        f.write(content)
    os.replace(f"{target}.tmp", target)
    return target


def place_image(source: str, target: str, copy: bool) -> None:
    """Link or copy an image into folders that are made; what is there already and is the same stays."""
    source = os.path.abspath(source)
    if os.path.lexists(target):
        if os.path.exists(target) and os.path.samefile(source, target):
            return
        os.remove(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if copy:
        shutil.copyfile(source, f"{target}.tmp")
        os.replace(f"{target}.tmp", target)
        return
    try:
        os.symlink(source, target)
    except OSError:  # a file system or a user without symbolic links
        shutil.copyfile(source, target)
