#!/usr/bin/env python
"""Try every part that may stand in the network, and write the table of what works to docs/compatibility.md."""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import tempfile
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import detectron2
import torch
from check import Outcome, is_available, street, try_row
from hosts import HOSTS, Host
from place import Place, prepare, register_drawn
from rows import ROWS, Row
from tabulate import tabulate
from tqdm import tqdm

from panoptic_fpn_ext.command import command_parser, run_command

DOCS = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
_HEAD = """# What fits

What may stand in a Panoptic FPN of this package instead of the parts of the paper. Each row that works was built as a
narrow network, trained for two steps, evaluated, saved and loaded, and optimised for a CPU (`optimize_for_inference`),
with equal results. The table is made by `python projects/compatibility/run.py`, and
`tests/projects/test_compatibility.py` tries every row again.

"""
_HOSTS = """No row: Mask Scoring R-CNN, which neither detectron2 nor its projects have; PAFPN and BiFPN, which neither
detectron2 nor torchvision have, and which other packages tie to their own networks. A pyramid of your own fits where it
is a `Backbone` of detectron2 with levels that halve.

Combiners also work without these networks: on detectron2's own `PanopticFPN` (`combine_built_in`), and on results of
any model on disk (`python -m panoptic_fpn_ext.combine`), with the pixels of panopticapi's script.

## Programs around a model

Each was run once, unchanged but for the import and `MODEL.META_ARCHITECTURE`: scripts trained two iterations, evaluated
and saved; what wraps or copies a model had its losses and a gradient for every parameter
(`python projects/compatibility/run.py --detectron2 SOURCES`).

"""
_HEADS = ("part", "what", "", "a word", "`export`")


def line(row: Row, outcome: Outcome) -> list[str]:
    """Cells of a row of the table."""
    if outcome.refusal:
        return [row.part, row.name, "refused", row.word, ""]
    return [row.part, row.name, "works", row.word, outcome.export]


def host_line(host: Host, place: Place) -> list[str]:
    """Cells of a row of the second table; what detectron2's sources are needed for is left out without them."""
    if host.script and not (place.detectron2 and (place.detectron2 / host.script).is_dir()):
        return [host.name, "not tried", "needs detectron2's sources: --detectron2"]
    try:
        host.run(place)
    except Exception as error:
        return [host.name, "fails", " ".join(str(error).split())[-300:] or type(error).__name__]
    return [host.name, "works", host.word]


def table(rows: Sequence[list[str]], headers: Sequence[str] = _HEADS) -> str:
    """As Markdown."""
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def versions() -> str:
    """What the tables were written with."""
    names = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))
    compiled = "with" if find_spec("detectron2._C") else "without"
    return f"Written with {names} and detectron2 {detectron2.__version__} {compiled} its compiled operators."


def main(arguments: Sequence[str] | None = None) -> None:
    """Try the rows."""
    parser = command_parser(__doc__, "python projects/compatibility/run.py --only Swin")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their name; tables are printed")
    parser.add_argument("--onnx", action="store_true", help="also write each network as an ONNX file")
    parser.add_argument("--detectron2", type=Path, metavar="DIR", help="detectron2's sources, for its tools/ and demo/")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines, hosts = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = street(Path(folder) / "street")
        for row in tqdm([row for row in ROWS if args.only in row.name], disable=None):
            if is_available(row):
                lines.append(line(row, try_row(row, data, args.onnx)))
            else:
                lines.append([row.part, row.name, "not tried", f"{row.package or row.project} is not installed", ""])
        place = Place(Path(folder), args.detectron2)
        prepare(place.folder)
        register_drawn(place.folder)
        for host in tqdm([host for host in HOSTS if args.only in host.name], disable=None):
            hosts.append(host_line(host, place))
    parts, programs = table(lines), table(hosts, ("program", "", "a word"))
    if args.only:
        print(f"{parts}\n\n{programs}")
        return
    DOCS.write_text(f"{_HEAD}{parts}\n\n{_HOSTS}{programs}\n\n{versions()}\n", encoding="utf-8")
    print(f"{len(lines)} parts and {len(hosts)} programs are in {DOCS}.")


if __name__ == "__main__":
    run_command(main)
