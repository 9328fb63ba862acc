"""One self-contained HTML file, written image by image, and the same numbers as JSON and CSV beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from .. import __version__
from ..whole_files import whole_file
from .tables import Chart, Table, shown

__all__ = ["CHART_LIBRARY", "Block", "Section", "tables_of", "write_page", "write_tables"]

_ASSETS = Path(__file__).parent / "assets"
CHART_LIBRARY = ("chart.umd.min.js", "4.6.1", "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2")
"""File in ``assets``, version and SHA-256 of Chart.js (MIT), as npm has it in ``chart.js/dist``."""
_SCRIPTS = (CHART_LIBRARY[0], "page.js", "maps.js", "viewer.js")
_MARK = "<!-- images -->"
LAYERS = (
    ("photo", "Image", "i"),
    ("things", "Things", "t"),
    ("stuff", "Stuff", "f"),
    ("outlines", "Outlines", "o"),
    ("labels", "Labels", "l"),
    ("void", "Void", "v"),
)
KEYS = (
    ("n, p", "next, previous image"),
    ("+, −, 0", "zoom in, zoom out, whole image"),
    ("arrows", "move the image; the pointer, two fingers and the wheel do too"),
    ("1 … 6", "show one pane alone, or all again"),
    ("i t f o l v", "image, things, stuff, outlines, labels, void on or off"),
    ("s", "list of segments, where the screen is narrow"),
    ("Esc", "close"),
)


@dataclass(frozen=True)
class Block:
    """A part of a section that is no table and no chart; ``type`` says which, ``data`` what it needs."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Section:
    """``short``: its name in the bar at the top; ``blocks``: of ``Table``, ``Chart`` and ``Block``."""

    id: str
    short: str
    title: str
    blocks: Sequence[Any]
    text: str = ""

    def tables(self) -> list[Table]:
        """Those among its blocks."""
        return [block for block in self.blocks if isinstance(block, Table)]

    def charts(self) -> list[Chart]:
        """Those among its blocks, alone or side by side."""
        alone = [block for block in self.blocks if isinstance(block, Chart)]
        return alone + [one for block in self.blocks if block.type == "charts" for one in block.charts]


@cache
def _asset(name: str) -> str:
    """Text of a script or style of this package; its pointer to a source map would have browsers look for a file."""
    lines = (_ASSETS / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL"))


def script_json(content: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def write_page(path: str, context: Mapping[str, Any], data: Mapping[str, Any], images: Iterable[str]) -> None:
    """Write the page; nobody sees it before it is whole.

    Args:
        path: of the HTML file.
        context: what the template shows: ``title``, ``sections`` and so on.
        data: what the scripts need.
        images: JSON of each image of ``data["images"]``, in order, from :func:`.gallery.encoded_images`.
    """
    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=True, trim_blocks=False)
    template = environment.get_template("report.html.jinja")
    charts = {one.id: one.data() for section in context["sections"] for one in section.charts()}
    text = template.render(
        {"notes": (), "figures": (), "strips": (), "causes": (), "categories": data["categories"]} | dict(context),
        version=__version__,
        css=_asset("report.css"),
        scripts=[_asset(name) for name in _SCRIPTS],
        layers=LAYERS,
        data=script_json({**data, "charts": charts}),
        images_mark=_MARK,
        shown=shown,
    )
    head, tail = text.rsplit(_MARK, 1)
    with whole_file(path) as f:
        f.write(head)
        for number, image in enumerate(images):
            f.write(f'<script type="application/json" id="image-{number}">{image}</script>\n')
        f.write(tail)


def tables_of(path: str) -> list[str]:
    """Where the numbers of a page ``NAME.html`` are: ``NAME.json``, and the folder ``NAME_tables``."""
    stem = os.path.splitext(path)[0]
    return [f"{stem}.json", f"{stem}_tables"]


def write_tables(path: str, summary: Mapping[str, Any], sections: Iterable[Section]) -> list[str]:
    """Write ``NAME.json``, and ``NAME_tables`` with a CSV a table, beside ``NAME.html``; returns the paths."""
    json_path, folder = tables_of(path)
    tables = [table for section in sections for table in section.tables()]
    content = {**summary, "tables": {table.id: table.records() for table in tables}}
    with whole_file(json_path) as f:
        json.dump(content, f, indent=1, allow_nan=False)
    os.makedirs(folder, exist_ok=True)
    for table in tables:
        with whole_file(os.path.join(folder, f"{table.id}.csv")) as f:
            f.write(table.csv())
    return [json_path, folder]
