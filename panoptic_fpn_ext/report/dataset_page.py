"""What a check of a dataset found, as a page: findings, classes, plots and some images with their segments."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..data.check import KINDS, Findings, Result
from ..image_files import read_image
from ..panoptic_png import read_panoptic_png
from ..visualization import draw_panoptic
from .html import Bar, bars, category_colors, image_tag, page, table

__all__ = ["dataset_page"]

_SAMPLES = 6
_SIDE = 720  # px of a sample's longer side
_MOST_BARS = 25
_GROUNDS = (96, 96, 96)


def dataset_page(result: Result, panoptic_json: str, pngs: str, images: str | None = None) -> str:
    """HTML of one file, without scripts, that needs no other.

    Args:
        result: of ``check_dataset``.
        panoptic_json, pngs, images: what was checked; without ``images`` the samples are segments on grey.
    """
    colors = category_colors(result.categories)
    sections = [_overview(result), "<h2>Findings</h2>", _findings(result.findings)]
    if result.images:
        sections += ["<h2>Classes</h2>", _classes(result, colors), '<h2>Plots</h2><div class="plots">']
        sections += [*_plots(result, colors), "</div>"]
        sections += ['<h2>Samples</h2><div class="samples">', *_samples(result, pngs, images, colors), "</div>"]
    return page(f"Dataset {panoptic_json}", sections)


def _overview(result: Result) -> str:
    void = result.void / max(result.pixels, 1)
    things = sum(count * images for count, images in result.things.items()) / max(result.images, 1)
    warnings = sum(result.findings.counts.values()) - result.findings.errors
    parts = [
        f"{result.images:,} images, {sum(result.segments.values()):,} segments of {len(result.categories)} classes",
        f"{void:.1%} of the pixels void, {things:.1f} things an image",
        f"{result.findings.errors:,} errors, {warnings:,} warnings",
    ]
    return f"<p>{'<br>'.join(map(escape, parts))}</p>"


def _findings(findings: Findings) -> str:
    rows = []
    for kind in findings.kinds():
        row, examples = KINDS[kind], "".join(f"<li>{escape(text)}</li>" for text in findings.examples[kind])
        word = "error" if row.is_error else "warning"
        rows.append(
            f'<details{" open" if row.is_error else ""}><summary><b class="{word}">{word}</b> {escape(row.what)}: '
            f"{findings.counts[kind]:,}. {escape(row.remedy)}</summary><ul>{examples}</ul></details>"
        )
    return "\n".join(rows) or "<p>Nothing is wrong.</p>"


def _classes(result: Result, colors: Mapping[int, str]) -> str:
    rows, chips = [], []
    for id_, row in sorted(result.categories.items()):
        kind, share = "thing" if row["isthing"] else "stuff", result.areas[id_] / max(result.pixels, 1)
        counts = [result.images_with[id_], result.segments[id_], result.crowds[id_]]
        rows.append([str(row["name"]), kind, id_, *counts, f"{share:.3%}"])
        chips.append(colors[id_])
    return table(["class", "kind", "id", "images", "segments", "crowds", "of all pixels"], rows, chips)


def _plots(result: Result, colors: Mapping[int, str]) -> Iterator[str]:
    pixels = max(result.pixels, 1)
    by_class = [
        Bar(str(result.categories[id_]["name"]), area, f"{area / pixels:.2%}", colors[id_])
        for id_, area in result.areas.most_common(_MOST_BARS)
    ]
    yield bars("Pixels by class", [*by_class, Bar("void", result.void, f"{result.void / pixels:.2%}", "#888")])
    yield bars("Things in an image (images)", [Bar(name, n) for name, n in _ranges(result.things)])
    sizes = result.sizes.most_common(_MOST_BARS)
    yield bars("Image sizes, width × height (images)", [Bar(f"{w} × {h}", n) for (h, w), n in sizes])
    yield bars(
        "Side of things, √area in px (things)",
        [Bar(f"{2**k} – {2 ** (k + 1)}", n) for k, n in sorted(result.thing_sides.items())],
    )
    yield bars(
        "Void in an image (images)", [Bar(f"{10 * k} – {10 * k + 10} %", n) for k, n in sorted(result.voids.items())]
    )


def _ranges(counts: Counter[int]) -> Iterator[tuple[str, int]]:
    """Counts by ranges that double: 0, 1, 2 – 3, 4 – 7, …"""
    found: Counter[int] = Counter()
    for value, times in counts.items():
        found[value.bit_length()] += times
    for bits, times in sorted(found.items()):
        low, high = (1 << bits) >> 1, max(0, (1 << bits) - 1)
        yield str(low) if low == high else f"{low} – {high}", times


def _samples(result: Result, pngs: str, images: str | None, colors: Mapping[int, str]) -> Iterator[str]:
    """Images from all over the dataset; those that cannot be drawn are among the findings."""
    left = _SAMPLES
    for row in result.rows[:: max(1, len(result.rows) // (2 * _SAMPLES))]:
        if not left:
            return
        try:
            drawn = _drawn(row, pngs, images, result.categories, colors)
        except (OSError, ValueError):
            continue
        left -= 1
        yield image_tag(drawn, row.image["file_name"])


def _drawn(
    row: Any,
    pngs: str,
    images: str | None,
    categories: Mapping[int, Mapping[str, Any]],
    colors: Mapping[int, str],
) -> npt.NDArray[np.uint8]:
    ids = read_panoptic_png(os.path.join(pngs, row.annotation["file_name"]))
    pixels = np.full((*ids.shape, 3), _GROUNDS, np.uint8)
    if images is not None:
        pixels = read_image(os.path.join(images, row.image["file_name"]), "RGB")
    place = {id_: number for number, id_ in enumerate(categories)}
    segments = [
        {**s, "category_id": place[s["category_id"]], "isthing": bool(categories[s["category_id"]]["isthing"])}
        for s in row.segments
        if s["category_id"] in place
    ]
    names = [str(row["name"]) for row in categories.values()]
    rgb = [tuple(bytes.fromhex(colors[id_][1:])) for id_ in categories]
    metadata = SimpleNamespace(thing_classes=names, stuff_classes=names, thing_colors=rgb, stuff_colors=rgb)
    drawn = Image.fromarray(draw_panoptic(pixels, ids, segments, metadata, hatch_void=True, vary=False))
    drawn.thumbnail((_SIDE, _SIDE))
    return np.asarray(drawn)
