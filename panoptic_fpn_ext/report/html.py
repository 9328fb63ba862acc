"""Pieces of an HTML page; all text that comes from data is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.utils.colormap import colormap
from PIL import Image

__all__ = ["Bar", "bars", "category_colors", "image_tag", "page", "table"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4c78a8; --error: #c62828; --warning: #b26a00; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } th, td { padding: .15rem .8rem .15rem 0;
  border-bottom: 1px solid var(--line); text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.chip { display: inline-block; width: .9em; height: .9em; border-radius: 2px; margin-right: .4em;
  vertical-align: -.08em }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 3rem } figure { margin: 0; } figcaption { font-weight: 600;
  margin: .6rem 0 .2rem }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem }
  .samples img { width: 100% }
.samples figcaption { font-weight: 400; overflow-wrap: anywhere; font-size: .85rem }
details { margin: .3rem 0 } summary b.error { color: var(--error) } summary b.warning { color: var(--warning) }
li { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .85rem }
svg text { fill: currentColor; font: 12px system-ui, sans-serif }
"""
_ROW, _LABEL, _LENGTH, _VALUE = 20, 170, 220, 90  # px
_MOST_TEXT = 26


class Bar(tuple[str, float, str, str]):
    """Label, length, the value as text, colour."""

    def __new__(cls, label: str, length: float, value: str = "", color: str = "var(--bar)") -> Bar:
        """Without a text, the value is the length."""
        return super().__new__(cls, (label, length, value or f"{length:g}", color))


def page(title: str, sections: Iterable[str]) -> str:
    """A whole page of sections that are HTML already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], colors: Sequence[str] = ()) -> str:
    """A table; numbers stand at the right. ``colors``: of a chip before the first cell of each row."""
    body = []
    for number, row in enumerate(rows):
        chip = f'<span class="chip" style="background:{escape(colors[number])}"></span>' if colors else ""
        cells = [_cell(value, chip if not column else "") for column, value in enumerate(row)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(body) + "\n</tbody></table>"


def _cell(value: Any, before: str) -> str:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{before}{escape(f'{value:,}' if isinstance(value, int) else str(value))}</td>"


def bars(caption: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars, as SVG."""
    longest = max((row[1] for row in rows), default=0) or 1
    drawn = []
    for number, (label, length, value, color) in enumerate(rows):
        y, width = number * _ROW, _LENGTH * length / longest
        text = label if len(label) <= _MOST_TEXT else f"{label[: _MOST_TEXT - 1]}…"
        drawn.append(
            f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(text)}<title>{escape(label)}</title></text>'
            f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="{escape(color)}"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 14}">{escape(value)}</text>'
        )
    size = f'width="{_LABEL + _LENGTH + _VALUE}" height="{max(1, len(rows)) * _ROW}"'
    return f'<figure><figcaption>{escape(caption)}</figcaption><svg role="img" {size}>{"".join(drawn)}</svg></figure>'


def image_tag(pixels: npt.NDArray[np.uint8], caption: str) -> str:
    """An image (uint8 (H, W, 3), RGB), in the page itself."""
    data = BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    text = escape(caption)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def category_colors(categories: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """``#rrggbb`` by category id: the JSON's colour, or one of detectron2's; the same at every call."""
    others = colormap(rgb=True, maximum=255).astype(int).tolist()
    chosen = {
        id_: row.get("color") or others[number % len(others)] for number, (id_, row) in enumerate(categories.items())
    }
    return {id_: "#" + "".join(f"{int(value):02x}" for value in color) for id_, color in chosen.items()}
