"""Runs all checks of a dataset, and gathers what people look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from ...command import num_cores
from .annotations import Dataset, Row, read_dataset
from .files import Checked, check_files
from .findings import Findings

__all__ = ["Result", "check_dataset", "check_sample", "find_copies"]

_ALIKE = 3  # bits of 64 that may differ


@dataclass
class Result:
    """What a check found.

    ``categories``: by dataset id, the row of the JSON. ``segments``, ``areas`` (px), ``crowds``, ``images_with``: by
    dataset id. ``things``: how many images have how many countable things. ``looks``: hash of each image's look, by
    its path. ``thing_sides``: how many things have a √area of 2ᵏ px or more, below twice that, by k; ``voids``: how
    many images are void to k tenths or more, by k. ``rows``: the images, as far as they are right.
    """

    findings: Findings = field(default_factory=Findings)
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    images: int = 0
    pixels: int = 0
    void: int = 0
    segments: Counter[int] = field(default_factory=Counter)
    areas: Counter[int] = field(default_factory=Counter)
    crowds: Counter[int] = field(default_factory=Counter)
    images_with: Counter[int] = field(default_factory=Counter)
    things: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    looks: dict[str, int] = field(default_factory=dict)
    thing_sides: Counter[int] = field(default_factory=Counter)
    voids: Counter[int] = field(default_factory=Counter)
    rows: list[Row] = field(default_factory=list)
    fixed: dict[str, Any] | None = None


def check_dataset(
    panoptic_json: str, pngs: str, images: str | None = None, *, processes: int = 0, show_progress: bool = True
) -> Result:
    """Check a dataset in COCO panoptic format.

    Args:
        panoptic_json, pngs, images: as of ``register_coco_panoptic``; without ``images``, they are not looked at.
        processes: how many; 0 for one a core.
        show_progress: whether a bar is drawn.

    Returns:
        Among others ``fixed``, the JSON with everything mended that has one right answer.

    Raises:
        FileNotFoundError: the JSON or a folder is not there.
    """
    if not PathManager.isfile(panoptic_json):
        raise FileNotFoundError(f"Panoptic JSON {panoptic_json} does not exist.")
    result = Result()
    dataset = read_dataset(panoptic_json, result.findings)
    if dataset is None:
        return result
    for folder, of in ((pngs, "panoptic PNGs"), (images, "images")):
        if folder is not None and not PathManager.isdir(folder):
            raise FileNotFoundError(f"Folder {folder} of the {of} does not exist.")
    result.categories, result.rows = dataset.categories, dataset.rows
    isthing = {id_: bool(row["isthing"]) for id_, row in dataset.categories.items()}
    work = _Checks(dataset.rows, isthing, pngs, images)
    processes = min(processes or num_cores(), len(work))
    loader = DataLoader(work, batch_size=None, num_workers=processes if processes > 1 else 0, collate_fn=_as_it_is)
    bar = tqdm(loader, total=len(work), desc=f"Check {panoptic_json}", unit="image", disable=not show_progress)
    for row, checked in zip(dataset.rows, bar, strict=True):
        result.findings.update(checked.findings)
        _count(result, row, checked, isthing)
        _mend(row, checked)
    for id_, count in result.segments.items():
        if count == result.crowds[id_]:
            result.findings.add("only crowds", f"{dataset.categories[id_]['name']!r} (id {id_}): {count}")
    for first, second in find_copies(result.looks):
        result.findings.add("copies", f"{first} and {second}")
    result.fixed = _in_order(dataset)
    return result


def check_sample(dicts: Sequence[dict[str, Any]], most: int) -> Findings:
    """Check the files of some images of detectron2's standard dicts, evenly spread.

    Args:
        dicts: with ``segments_info``; fields of the JSON are right already.
        most: images to look at.
    """
    findings = Findings()
    chosen = dicts[:: max(1, -(-len(dicts) // most))] if most > 0 else []
    with ThreadPoolExecutor(num_cores()) as pool:  # decoders let go of the interpreter
        for checked in pool.map(_check_dict, chosen):
            findings.update(checked.findings)
    return findings


def _check_dict(one: dict[str, Any]) -> Checked:
    size = {"height": one["height"], "width": one["width"]}
    row = Row(
        {"file_name": one["file_name"], **size}, {"file_name": one["pan_seg_file_name"]}, list(one["segments_info"])
    )
    return check_files(row, {}, "", "")


@dataclass(frozen=True)
class _Checks(TorchDataset[Any]):
    rows: Sequence[Row]
    isthing: Mapping[int, bool]
    pngs: str
    images: str | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Checked:
        return check_files(self.rows[index], self.isthing, self.pngs, self.images)


def _as_it_is(result: Any) -> Any:
    return result


def _count(result: Result, row: Row, checked: Checked, isthing: Mapping[int, bool]) -> None:
    result.images += 1
    result.pixels += checked.pixels
    result.void += checked.void
    result.sizes[row.image["height"], row.image["width"]] += 1
    if checked.look is not None:
        result.looks[checked.path] = checked.look
    segments = [s for s in row.segments if s["id"] in checked.areas and s["category_id"] in isthing]
    for segment in segments:
        category = segment["category_id"]
        result.segments[category] += 1
        result.areas[category] += checked.areas[segment["id"]]
        result.crowds[category] += segment["iscrowd"]
        if isthing[category] and not segment["iscrowd"]:
            result.thing_sides[int(math.log2(checked.areas[segment["id"]]) / 2)] += 1
    if checked.pixels:
        result.voids[min(9, 10 * checked.void // checked.pixels)] += 1
    result.images_with.update({segment["category_id"] for segment in segments})
    result.things[sum(isthing[s["category_id"]] and not s["iscrowd"] for s in segments)] += 1


def _mend(row: Row, checked: Checked) -> None:
    """Areas and boxes of the PNG; segments without a pixel go. A PNG that is to be written again says nothing."""
    if not checked.pixels or checked.findings.counts["bgr"] or checked.findings.counts["png size"]:
        return
    gone = []
    for segment in row.segments:
        if segment["id"] in checked.areas:
            segment.update(area=checked.areas[segment["id"]], bbox=checked.boxes[segment["id"]])
        else:
            gone.append(segment)
    row.annotation["segments_info"] = [s for s in row.annotation["segments_info"] if not any(s is g for g in gone)]


def _in_order(dataset: Dataset) -> dict[str, Any]:
    """The JSON in the order of ids."""
    content = dict(dataset.content)
    content["categories"] = sorted(content["categories"], key=_id_first)
    return content


def _id_first(row: Any) -> tuple[bool, int]:
    is_right = isinstance(row, dict) and isinstance(row.get("id"), int)
    return not is_right, row["id"] if is_right else 0


def find_copies(first: Mapping[str, int], second: Mapping[str, int] | None = None) -> Iterable[tuple[str, str]]:
    """Pairs of images that look the same, by the hashes of their looks; each pair once.

    Args:
        first: hash by path.
        second: of another part of the dataset, where a path that is in both is a pair too; without it, the pairs are
            those within ``first``, no image with itself.

    Hashes that differ in at most three bits agree in one of four quarters, so only those are compared.
    """
    quarters: dict[tuple[int, int], list[str]] = {}
    for name, look in first.items():
        for quarter in range(4):
            quarters.setdefault((quarter, look >> 16 * quarter & 0xFFFF), []).append(name)
    seen = set()
    for name, look in (first if second is None else second).items():
        for quarter in range(4):
            for other in quarters.get((quarter, look >> 16 * quarter & 0xFFFF), ()):
                pair = (min(name, other), max(name, other))
                is_itself = second is None and other == name
                if not is_itself and pair not in seen and (look ^ first[other]).bit_count() <= _ALIKE:
                    seen.add(pair)
                    yield pair
