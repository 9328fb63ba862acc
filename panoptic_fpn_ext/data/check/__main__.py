"""Check a dataset in COCO panoptic format: everything that is wrong, in one pass.

For example::

    python -m panoptic_fpn_ext.data.check panoptic_train.json panoptic_train images --fix panoptic_train_fixed.json

The exit status is 0 if nothing is wrong that spoils training or figures, 1 if something is or no image could be
checked, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ...command import run_command, whole
from ...pixel_bound import set_pixel_bound
from ...whole_files import keep_inputs, whole_file
from .annotations import content_text
from .findings import KINDS
from .runner import Result, check_dataset, find_copies


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m panoptic_fpn_ext.data.check",
        description=(__doc__ or "").replace("::", ":"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("json", help="the panoptic JSON")
    parser.add_argument("pngs", help="folder of its panoptic PNGs")
    parser.add_argument("images", nargs="?", help="folder of its images; without it they are not looked at")
    parser.add_argument("--fix", metavar="JSON", help="write the JSON with all mended that has one right answer")
    parser.add_argument("--result", metavar="JSON", help="write what was found for a machine")
    parser.add_argument("--html", metavar="PAGE", help="write a page: findings, classes, plots, some images")
    parser.add_argument(
        "--against",
        nargs=3,
        metavar=("JSON", "PNGS", "IMAGES"),
        help="another part of the dataset: images of both that look the same are found",
    )
    parser.add_argument("--processes", type=whole(0), default=0, help="default: one a core")
    parser.add_argument("--max-image-pixels", type=whole(0), default=0, help="most of a file (default: Pillow's)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    args = _parser().parse_args(arguments)
    set_pixel_bound(args.max_image_pixels)
    _refuse_before_the_work(args)
    result = check_dataset(args.json, args.pngs, args.images, processes=args.processes)
    if args.against:
        other = check_dataset(*args.against, processes=args.processes)
        copies = list(find_copies(other.looks, result.looks))
        for first, second in copies:
            result.findings.add("copies", f"{first} and {second}, in {args.json} and {args.against[0]}")
        if not copies:
            _show(f"No image of {args.json} looks like one of {args.against[0]}.")
    _show(summary(result))
    _show(result.findings.text())
    if args.fix and result.fixed is not None:
        _write(args.fix, content_text(result.fixed))
        mended = [kind for kind in result.findings.counts if KINDS[kind].fixable]
        _show(f"Mended in {args.fix}: {', '.join(mended) or 'nothing'}.")
    if args.result:
        _write(args.result, json.dumps(result.findings.data(), indent=2, ensure_ascii=False))
    if args.html:
        from ...report import dataset_page  # only here is it needed, and it draws

        _write(args.html, dataset_page(result, args.json, args.pngs, args.images))
        _show(f"Written: {args.html}")
    return 1 if result.findings.errors or not result.images else 0


def _refuse_before_the_work(args: argparse.Namespace) -> None:
    """What would be found after all images were read, or never."""
    keep_inputs([path for path in (args.result, args.html) if path], [args.json, *(args.against or [])])
    if args.against and args.images is None:
        raise ValueError("--against compares images: name the folder of this dataset's own too, behind PNGS.")
    if args.against and not os.path.isfile(args.against[0]):
        raise FileNotFoundError(f"Panoptic JSON {args.against[0]} (--against) does not exist.")
    for path in filter(None, (args.fix, args.result, args.html)):
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise FileNotFoundError(f"There is no folder for {path}: make {os.path.dirname(path)} first.")


def summary(result: Result) -> str:
    """What a dataset has, as a person reads it."""
    if not result.images:
        return "No image could be checked."
    sizes = ", ".join(f"{w}×{h} ({n})" for (h, w), n in result.sizes.most_common(3))
    rows = [_row(id_, row, result) for id_, row in sorted(result.categories.items())]
    heads = ["id", "category", "kind", "images", "segments", "of all pixels", "crowds"]
    things = sum(count * images for count, images in result.things.items()) / result.images
    void = result.void / max(result.pixels, 1)
    return "\n".join(
        [
            f"{result.images} images, most of them {sizes}; {void:.1%} of the pixels void.",
            f"Things an image: {things:.1f} on average, {max(result.things)} at most.",
            tabulate(rows, heads, tablefmt="simple", floatfmt=".3%"),
        ]
    )


def _row(id_: int, row: dict[str, Any], result: Result) -> list[Any]:
    share = result.areas[id_] / max(result.pixels, 1)
    kind = "thing" if row["isthing"] else "stuff"
    return [id_, row["name"], kind, result.images_with[id_], result.segments[id_], share, result.crowds[id_]]


def _write(path: str, text: str) -> None:
    with whole_file(path) as f:
        f.write(text)


def _show(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    run_command(main)
