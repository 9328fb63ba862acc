"""Tables and charts as data: the page shows them, the JSON and the CSV files have the same numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

__all__ = ["Chart", "Column", "Series", "Table", "shown"]


@dataclass(frozen=True)
class Column:
    """``kind``: ``text``, ``count``, ``percent`` (0 to 100), ``points`` of PQ, ``change`` (signed), ``figure``."""

    name: str
    kind: str = "text"
    help: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values, None where there is none; the first column names the row.

    ``kinds``: of each row, to filter by, with ``filters``; ``colors``: of a chip before each row; ``opens``: the list
    of segments whose n-th one the n-th row opens; ``total``: a last row that is not sorted; ``most``:
    of the rows that are on the page, 0 for all: the files have all.
    """

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    kinds: Sequence[str] = ()
    colors: Sequence[str] = ()
    opens: str = ""
    total: Sequence[Any] = ()
    filters: bool = False
    most: int = 0
    type: str = field(default="table", init=False)

    def __post_init__(self) -> None:
        """Values that are not finite are none; columns have names of their own, by which the files know them."""
        names = [column.name for column in self.columns]
        assert len(set(names)) == len(names), f"table {self.id} has columns of one name: {names}"
        object.__setattr__(self, "rows", [[_finite(value) for value in row] for row in self.rows])

    def csv(self) -> str:
        """The rows as CSV, unrounded."""
        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        writer.writerows(["" if value is None else value for value in row] for row in self.rows)
        return out.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """The rows for a JSON file."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Series:
    """Values of a chart, one a label, None for a gap."""

    name: str
    values: Sequence[float | None]
    color: str
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """``kind``: ``bars`` (lying, stacked), ``columns`` or ``lines``; ``numeric``: the labels are numbers on an axis;
    ``range``: of both axes; ``log``: the y axis is logarithmic.
    """

    id: str
    caption: str
    labels: Sequence[Any]
    series: Sequence[Series]
    kind: str = "lines"
    x: str = ""
    y: str = ""
    numeric: bool = False
    log: bool = False
    range: tuple[float, float] | None = None
    type: str = field(default="chart", init=False)

    def data(self) -> dict[str, Any]:
        """What the page's script draws."""
        found = asdict(self)
        for series in found["series"]:
            series["values"] = [_finite(value) for value in series["values"]]
        return found


def shown(value: Any, kind: str) -> str:
    """A value as people read it; "" for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if kind == "text" or isinstance(value, str):
        return str(value)
    if kind == "count":
        return f"{value:,.0f}"
    if kind in ("points", "change"):
        if abs(value) < 1e-9:  # a zero that was computed
            return "0"
        text = f"{value:+.2f}" if kind == "change" else f"{value:.2f}"
        small = abs(value) < 0.005
        return (f"{value:+.1g}" if kind == "change" else f"{value:.1g}") if small else text
    if kind == "figure":
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return f"{value:.1f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
