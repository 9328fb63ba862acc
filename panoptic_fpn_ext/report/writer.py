"""A report from files: explain, choose, encode, write."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from ..evaluation.errors import PanopticErrors, explain_files
from ..whole_files import keep_inputs
from . import content, measures
from .causes import SHAPE, cause_rows
from .choice import Shown, choose_images, suspected_labels, worst_segments
from .comparison import comparison_section
from .costs import Costs
from .gallery import Budget, encoded_images
from .page import Section, tables_of, write_page, write_tables
from .sources import Source, source_of_files
from .tables import shown

__all__ = ["write_report"]

logger = logging.getLogger(__name__)


def write_report(
    output: str,
    gt_json: str | None,
    predictions: Sequence[str],
    *,
    images: str | None = None,
    gt_folder: str | None = None,
    pred_folders: Sequence[str] = (),
    names: Sequence[str] = (),
    title: str = "",
    budget: Budget | None = None,
    errors: Sequence[PanopticErrors] = (),
    more: Sequence[Section] = (),
    more_files: Sequence[str] = (),
) -> list[str]:
    """Write a page about predictions, and the same numbers as JSON and CSV beside it.

    Args:
        output: path of the HTML file.
        gt_json: COCO panoptic JSON of the ground truth; without it, the page shows the predictions alone.
        predictions: COCO panoptic JSONs of one or two models.
        images, gt_folder, pred_folders, names: see :func:`.sources.source_of_files`.
        title: of the page.
        budget: how much the images may take; is used up.
        errors: of each model, if they are known already; else they are found in the files.
        more: further sections, before the last one.
        more_files: what these are made of.

    Returns:
        The paths written.

    Raises:
        FileNotFoundError: a file or folder is absent.
        ValueError: anything wrong with the data, in one message; more than two models; or what would be written is
            one of the files that the page is made of.
    """
    if not 1 <= len(predictions) <= 2:
        raise ValueError(f"A report is about one model or two, got predictions of {len(predictions)}.")
    _refuse_output(output, [gt_json, *predictions, gt_folder, *pred_folders, *more_files])
    source = source_of_files(
        gt_json, predictions, images=images, gt_folder=gt_folder, pred_folders=pred_folders, names=names
    )
    if not source.images:
        files, has = " and ".join(predictions), "has" if len(predictions) == 1 else "have"
        of_which = f" of {gt_json}: give both the same image ids." if gt_json is not None else "."
        raise ValueError(f"{files} {has} no image{of_which}")
    costs = []
    if gt_json is not None:
        folders = [*pred_folders, *[None] * len(predictions)]
        errors = errors or [
            explain_files(gt_json, path, gt_folder, folder, _bar(f"Explaining {name}"))
            for path, folder, name in zip(predictions, folders, source.models, strict=False)
        ]
        ids = [image.image_id for image in source.images]
        assert all([image.image_id for image in one.images] == ids for one in errors)
        costs = [Costs.of(one) for one in errors]
        _refuse_foreign_maps(source, costs[0])
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        return _write(output, source, costs, title, budget or Budget(), more, spool)


def _refuse_output(output: str, inputs: Sequence[str | None]) -> None:
    """Of a page that is no file of its own, or that would be written over what it is made of, numbers included."""
    if output.endswith(".json") or os.path.isdir(output):
        raise ValueError(f"{output} is to be a page, a file with its numbers in a JSON beside it: name it FILE.html.")
    keep_inputs([output, *tables_of(output)], inputs)


def _refuse_foreign_maps(source: Source, costs: Costs) -> None:
    """Of a map without one of its segments nothing can be said but that all were missed, which would mislead."""
    number, truth = len(source.images), ~costs.rows["predicted"]
    listed = np.bincount(costs.image[truth], minlength=number)
    seen = np.bincount(costs.image[truth & (costs.rows["pixels"] > 0)], minlength=number)
    foreign = np.flatnonzero((listed > 0) & (seen == 0)).tolist()
    if foreign:
        one = source.images[foreign[0]].truth
        assert one is not None
        raise ValueError(
            f"{len(foreign)} panoptic PNGs of {source.files['ground truth']} have none of the segments listed for "
            f"them, the first is {one.path}: are they of other images, or saved as BGR? "
            "Write them again, each pixel the id R + 256 G + 65536 B."
        )


def _notes(costs: Sequence[Costs]) -> list[str]:
    """What readers should know of the files."""
    found = [note for one in costs for note in one.errors.notes]
    for one in costs:
        scores = one.rows["score"][~np.isnan(one.rows["score"])]
        if len(scores) and not 0 <= scores.min() <= scores.max() <= 1:
            found.append(
                f"Scores are from {scores.min():g} to {scores.max():g}, not in [0, 1]: what they mean is left out."
            )
    return list(dict.fromkeys(found))


def _bar(what: str) -> Any:
    return lambda items: tqdm(items, desc=what, unit="image", disable=None)


def _write(
    output: str,
    source: Source,
    costs: Sequence[Costs],
    title: str,
    budget: Budget,
    more: Sequence[Section],
    spool: IO[str],
) -> list[str]:
    worst = [worst_segments(source, one, model) for model, one in enumerate(costs)]
    suspects = suspected_labels(source, costs[0], 0) if costs else []
    every = [segment for found in worst for segments in found.values() for segment in segments]
    every = [segment for pair in zip_longest(every, suspects) for segment in pair if segment is not None]
    chosen = list(range(len(source.images)))[: budget.images]
    if costs:
        chosen = choose_images(costs, every, len(source.images), budget.images)
    kept = _spool(source, costs, chosen, budget, spool)
    numbers = {position: number for number, position in enumerate(kept)}
    lists = {
        f"{key}-{model}": _numbered(segments, numbers)
        for model, found in enumerate(worst)
        for key, segments in found.items()
    }
    lists["suspects"] = _numbered(suspects, numbers)
    sections = _sections(source, costs, kept, lists, worst, more)
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    write_page(output, _context(source, costs, sections, title), _data(source, costs, kept, lists), _lines(spool))
    return [output, *write_tables(output, _summary(source, costs), sections)]


def _spool(source: Source, costs: Sequence[Costs], chosen: Sequence[int], budget: Budget, spool: IO[str]) -> list[int]:
    """Encode the chosen images into a file, a line each; the positions of those that fit the budget."""
    found = _Known(costs)
    kept = []
    encoded = encoded_images(source, chosen, found, budget)
    for position, text in zip(chosen, _bar("Encoding images")(encoded), strict=False):
        if text is not None:
            spool.write(text + "\n")
            kept.append(position)
    return kept


class _Known(Mapping[int, Any]):
    """What is known of an image's segments, looked up when it is its turn."""

    def __init__(self, costs: Sequence[Costs]) -> None:
        self._costs = costs

    def __getitem__(self, position: int) -> list[Any]:
        return [one.known(position) for one in self._costs]

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _lines(spool: IO[str]) -> Iterator[str]:
    spool.seek(0)
    for line in spool:
        yield line.rstrip("\n")


def _numbered(segments: Sequence[Shown], numbers: Mapping[int, int]) -> list[Shown]:
    """Segments whose image is shown, with its number on the page."""
    return [{"number": numbers[s["position"]], **s} for s in segments if s["position"] in numbers]


def _sections(
    source: Source,
    costs: Sequence[Costs],
    kept: Sequence[int],
    lists: Mapping[str, Sequence[Shown]],
    worst: Sequence[Mapping[str, Sequence[Shown]]],
    more: Sequence[Section],
) -> list[Section]:
    sections = []
    if costs:
        sections.append(content.lost_section(source, costs))
        if len(costs) == 2:
            sections.insert(0, comparison_section(source, costs))
        sections.append(content.class_section(source, costs))
        sections.append(measures.confusion_section(source, costs))
        sections.append(measures.strata_section(source, costs))
        sections += measures.calibration_section(source, costs)
    sections.append(content.images_section(source, len(kept)))
    if costs:
        drawn = [{key: lists[f"{key}-{model}"] for key in found} for model, found in enumerate(worst)]
        sections.append(content.segments_section(source, drawn))
        sections.append(content.labels_section(lists["suspects"]))
    return [*sections, *more, content.about_section(source)]


def _context(source: Source, costs: Sequence[Costs], sections: Sequence[Section], title: str) -> dict[str, Any]:
    things = sum(bool(row["isthing"]) for row in source.categories)
    subtitle = f"{len(source.images):,} images, {things} classes of things, {len(source.categories) - things} of stuff"
    named = " and ".join(source.models)
    context = {"title": title or f"Panoptic report: {named}", "subtitle": subtitle, "sections": sections}
    if not costs:
        return context
    used = np.any([one.total > 0 for one in costs], axis=0).tolist()
    causes = [{**cause, "used": flag} for cause, flag in zip(cause_rows(), used, strict=True)]
    return {**context, **content.headline(source, costs), "causes": causes, "notes": _notes(costs)}


def _data(
    source: Source, costs: Sequence[Costs], kept: Sequence[int], lists: Mapping[str, Sequence[Shown]]
) -> dict[str, Any]:
    categories = [
        {"name": str(row["name"]), "isthing": bool(row["isthing"]), "color": color}
        for row, color in zip(source.categories, source.colors, strict=True)
    ]
    return {
        "models": list(source.models),
        "categories": categories,
        "causes": cause_rows() if costs else [],
        "shape": SHAPE,
        "images": [_image(source, costs, position) for position in kept],
        "segments": lists,
        "confusion": measures.confusion_data(source, costs) if costs else None,
    }


def _image(source: Source, costs: Sequence[Costs], position: int) -> dict[str, Any]:
    image = source.images[position]
    maps = [one for one in (image.truth, *image.predictions) if one is not None]
    used = sorted({source.category_index[s["category_id"]] for one in maps for s in one.segments})
    row: dict[str, Any] = {"name": image.name, "title": image.name, "categories": used}
    if not costs:
        count = sum(len(one.segments) for one in image.predictions)
        return {**row, "text": f"{count} segments", "count": count}
    lost = [float(one.by_image[position].sum()) for one in costs]
    by_cause = np.max([one.by_image[position] for one in costs], axis=0)
    text = " and ".join(shown(value, "points") for value in lost) + " points lost"
    row |= {"text": text, "lost": max(lost), "by_cause": {int(k): float(by_cause[k]) for k in np.flatnonzero(by_cause)}}
    if len(costs) == 2:
        row |= {"differ": abs(lost[0] - lost[1]), "gained": lost[0] - lost[1]}
    return {**row, "title": f"{image.name}: {text}"}


def _summary(source: Source, costs: Sequence[Costs]) -> dict[str, Any]:
    """What the JSON has besides the tables."""
    models = [{"name": name, **one.errors.totals()} for name, one in zip(source.models, costs, strict=False)]
    return {"images": len(source.images), "files": dict(source.files), "models": models}
