#!/usr/bin/env python
"""Try every part that may stand in the network, and write the table of what works to docs/compatibility.md."""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from check import Outcome, is_available, street, try_row
from rows import ROWS, Row
from tabulate import tabulate
from tqdm import tqdm

from panoptic_fpn_ext.command import command_parser

DOCS = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
_HEAD = """# What fits

What may stand in a Panoptic FPN of this package instead of the parts of the paper. Each row was built as a narrow
network, trained for two steps, evaluated, saved and loaded, and optimised for a CPU (`optimize_for_inference`), with
equal results. The table is made by `python projects/compatibility/run.py`, and
`tests/projects/test_compatibility.py` tries every row again.

"""
_HEADS = ("part", "what", "", "a word", "`export`")


def line(row: Row, outcome: Outcome) -> list[str]:
    """Cells of a row of the table."""
    if outcome.refusal:
        return [row.part, row.name, "refused", row.word, ""]
    return [row.part, row.name, "works", row.word, outcome.export]


def table(rows: Sequence[list[str]]) -> str:
    """As Markdown."""
    return tabulate(rows, headers=_HEADS, tablefmt="github", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the rows."""
    parser = command_parser(__doc__, "python projects/compatibility/run.py --only Swin")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their name; the table is printed")
    parser.add_argument("--onnx", action="store_true", help="also write each network as an ONNX file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        data = street(Path(folder) / "street")
        for row in tqdm([row for row in ROWS if args.only in row.name], disable=None):
            if is_available(row):
                lines.append(line(row, try_row(row, data, args.onnx)))
            else:
                lines.append([row.part, row.name, "not tried", f"{row.package or row.project} is not installed", ""])
    if args.only:
        print(table(lines))
        return
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))
    DOCS.write_text(f"{_HEAD}{table(lines)}\n\nWritten with {versions}.\n", encoding="utf-8")
    print(f"{len(lines)} rows are in {DOCS}.")


if __name__ == "__main__":
    main()
