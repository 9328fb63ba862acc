"""Convert a dataset of any of the known formats to COCO panoptic format.

``python -m panoptic_fpn_ext.data.convert FORMAT … --output DIR``; ``FORMAT --help`` says what a format needs.
For example::

    python -m panoptic_fpn_ext.data.convert coco _annotations.coco.json --things car,window --output panoptic
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from iopath.common.file_io import file_lock

from ..command import run_command, whole
from ..pixel_bound import set_pixel_bound
from .formats import FORMATS, Conversion, LabelOptions, Source, choose_labels, convert
from .formats.conversion import said
from .formats.conversion_record import is_done, keep_foreign_files, make_record, read_record, write_record
from .formats.conversion_report import details, summary
from .formats.files import CONVERSION_RECORD, MALFORMED
from .formats.labels import read_label_options
from .formats.splits import WHOLE, file_stem, groups_of, split_images, without_taken_images

__all__ = ["CONVERSION_RECORD", "Description", "build_parser", "convert_description", "parse_description"]

_FOLDER = "panoptic_fpn_ext"  # of results that are named nowhere
_SPLIT_NAMES = ("train", "val", "test")
_SHARES_ROUNDING = 0.011  # three thirds may be 0.33/0.33/0.33

Description = argparse.Namespace


def build_parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Parser of the command line: one subcommand a format, made from the signature of its reader."""
    parser = kind(
        prog="python -m panoptic_fpn_ext.data.convert",
        description=_plain(__doc__ or "").replace("::", ":"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, read in FORMATS.items():
        text, _, arguments = _plain(inspect.getdoc(read) or "").partition("\n\nArgs:\n")
        text = text.partition("\n\nRaises:")[0]
        sub = formats.add_parser(name, help=text.split("\n")[0].rstrip("."), description=text)
        _add_reader_arguments(sub, read, arguments.partition("\n\nRaises:")[0])
        _add_common_arguments(sub)
    return parser


def _plain(docstring: str) -> str:
    """Without the marks of code."""
    return re.sub(r"(?::\w+:)?`+~?([^`]*)`+", r"\1", docstring)


def _add_reader_arguments(parser: argparse.ArgumentParser, read: Callable[..., Source], text: str) -> None:
    """Positional arguments are those without a default; their help is the docstring's."""
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    helps = {name: re.sub(r"\s+", " ", what).replace("%", "%%") for name, what in found}
    for name, parameter in inspect.signature(read).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            parser.add_argument(name, help=helps.get(name))
        else:
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, default=parameter.default, metavar=name.upper(), help=helps.get(name))


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    common = parser.add_argument_group("for every format")
    common.add_argument(
        "--output",
        help="folder of the result (default: panoptic_fpn_ext in the source's folder; of a file NAME.json "
        "panoptic_fpn_ext/NAME beside it)",
    )
    common.add_argument("--things", type=_names, help="names of the categories that are things, A,B; others are stuff")
    common.add_argument("--stuff", type=_names, help="names of the categories that are stuff; others are things")
    common.add_argument("--labels-file", help="YAML with things, stuff, layers, leave_out and unlabelled instead")
    common.add_argument("--layers", help="who is on top where annotations overlap: 'wall, road < car < person'")
    common.add_argument("--leave-out", type=_names, default=[], help="categories whose pixels are void")
    common.add_argument("--unlabelled", help="stuff category of unlabelled pixels (default: they are void)")
    common.add_argument("--split", type=_shares, default={}, help="shares of train/val/test, such as 0.8/0.1/0.1")
    group = "regular expression: images where it finds the same stay in one part"
    common.add_argument("--group", type=_expression, help=group)
    common.add_argument("--copy", action="store_true", help="copy the images instead of linking them")
    common.add_argument("--processes", type=whole(0), default=0, help="default: one a core")
    bound = "most pixels of an image (default: Pillow's)"
    common.add_argument("--max-image-pixels", type=whole(0), default=0, help=bound)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"a regular expression is needed, but {text!r} is none: {error}") from error
    return text


def _shares(text: str) -> dict[str, float]:
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"shares such as 0.8/0.1/0.1 are needed, got {text!r}") from error
    if not 2 <= len(shares) <= len(_SPLIT_NAMES) or min(shares) <= 0:
        raise argparse.ArgumentTypeError(f"two or three shares above 0 are needed, got {text!r}")
    if max(shares) < 1 and abs(sum(shares) - 1) > _SHARES_ROUNDING:
        raise argparse.ArgumentTypeError(f"shares must sum to 1, those of {text!r} sum to {sum(shares):g}")
    return dict(zip(_SPLIT_NAMES, shares, strict=False))


def parse_description(text: str) -> Description:
    """A description in one string, as ``train_net.py --data`` takes it: what the command line takes after its name.

    Raises:
        ValueError: it is none.
    """

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ValueError(f"{text!r} describes no dataset: {message}.")

    parser = build_parser(Parser)
    try:
        words = shlex.split(text)
    except ValueError as error:
        parser.error(str(error).lower())
    return parser.parse_args(words)


def convert_description(
    description: Description, show: Callable[[str], None], show_details: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Convert what a description says, unless that was done and nothing has changed since.

    Args:
        description: of :func:`parse_description`, or the command line's.
        show: is given the lines of the report: how the description is understood, what was found and left out.
        show_details: is given the table of categories and who covers whom; ``show`` if None.

    Returns:
        The JSON of each part of the dataset; one part is called "all" if it is not split.

    Raises:
        ValueError: the source is not of its format, the description does not fit it, or the output is another source's.
        OSError: the output cannot be written.
    """
    set_pixel_bound(description.max_image_pixels)
    parameters = inspect.signature(FORMATS[description.format]).parameters
    arguments = {name: getattr(description, name) for name in parameters}
    source = _read(description.format, arguments)
    output = description.output or _beside(_source_path(vars(description)))
    _make(output)
    with file_lock(os.path.join(output, CONVERSION_RECORD)):  # of several processes one works and the others wait
        return _convert(description, source, output, show, show_details or show)


def _convert(
    description: Description,
    source: Source,
    output: str,
    show: Callable[[str], None],
    show_details: Callable[[str], None],
) -> dict[str, str]:
    record = make_record(description, source)
    before = read_record(output)
    if before is not None and is_done(record, before, output):
        show(f"{output} is up to date.")
        return {part: os.path.join(output, name) for part, name in before["parts"].items()}
    if before is None:
        keep_foreign_files(split_images(source.images, description.split, description.group), output)
    else:
        _refuse_another_source(before["description"], vars(description), output)
    labels = choose_labels(source, _label_options(description))
    for line in labels.lines:
        show(line)
    if description.group:
        show(_grouping(source, description.group))
    conversion = Conversion(labels, description.split, description.group, description.copy, description.processes)
    write_record(output, record)  # from here on the folder is this conversion's, and not up to date until it ends
    reports = convert(source, conversion, output)
    for part, report in reports.items():
        show(summary(part, report, labels))
        show_details(details(report, labels))
    for note in source.notes:
        show(f"Left out: {note}.")
    record["parts"] = {part: f"{file_stem(part)}.json" for part in reports}
    write_record(output, record)
    return {part: os.path.join(output, name) for part, name in record["parts"].items()}


def _refuse_another_source(before: Mapping[str, Any], now: Mapping[str, Any], output: str) -> None:
    """The same source may be converted anew; what was made of another one that is still there is not lost."""
    old, new = _source_path(before), _source_path(now)
    if os.path.exists(old) and os.path.realpath(old) != os.path.realpath(new):  # one that has gone is taken for moved
        message = f"{output} holds what was converted from {old}. Name another folder by --output, or remove this one."
        raise ValueError(message)


def _make(output: str) -> None:
    """The folder of the result, which by default lies beside the source, where not everybody may write."""
    reason = ""
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason or not os.access(output, os.W_OK):
        reason = reason or "it cannot be written to"
        raise OSError(f"{output}: {reason}. Name a folder for the result by --output.")


def _read(format_name: str, arguments: Mapping[str, Any]) -> Source:
    for name in ("images", "stuff_maps"):
        if arguments.get(name) and not os.path.isdir(arguments[name]):
            raise ValueError(f"--{name.replace('_', '-')} {arguments[name]}: there is no such folder.")
    try:
        source = FORMATS[format_name](**arguments)
        twice = [id_ for id_, times in Counter(c["id"] for c in source.categories).items() if times > 1]
        if twice:
            raise ValueError(
                f"{next(iter(arguments.values()))}: categories share the ids {twice[:5]}. Give each its own."
            )
        names = [str(c["name"]) for c in source.categories]
        odd = [name for name in names if not name.strip() or any(ord(character) < 32 for character in name)]
        if odd:
            raise ValueError(
                f"{next(iter(arguments.values()))}: names of categories are empty or have characters that are none, "
                f"such as {odd[0]!r}. Name them anew."
            )
        categories = [{**c, "name": n} for c, n in zip(source.categories, names, strict=True)]
        return replace(source, categories=categories, images=without_taken_images(source.images))
    except (ValueError, OSError, ImportError):
        raise
    except MALFORMED as error:
        where = ", ".join(str(value) for value in arguments.values() if value is not None)
        raise ValueError(f"{where}: this is not what the format {format_name} has: {said(error)}.") from error


def _beside(path: str) -> str:
    """Where the result lies if nothing else is said: files of one folder, as train.json and val.json, share none."""
    if os.path.isdir(path):
        return os.path.join(path, _FOLDER)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, _FOLDER, os.path.splitext(name)[0])


def _source_path(description: Mapping[str, Any]) -> str:
    """The dataset that is converted: a reader's first argument."""
    return str(description[next(iter(inspect.signature(FORMATS[description["format"]]).parameters))])


def _label_options(description: Description) -> LabelOptions:
    values = read_label_options(description.labels_file) if description.labels_file is not None else {}
    given = {key: getattr(description, key) for key in ("things", "stuff", "layers", "leave_out", "unlabelled")}
    return LabelOptions(**{**given, **{key: value for key, value in values.items() if not given[key]}})


def _grouping(source: Source, group: str) -> str:
    """What an expression keeps together: one that matches too much keeps nothing."""
    groups = groups_of(source.images, group)
    largest = max(groups, key=lambda name: len(groups[name]), default="")
    if len(groups) == len(source.images):
        return f"--group {group!r} finds something else in each image's name, such as {largest!r}: nothing is grouped."
    return f"{len(source.images)} images in {len(groups)} groups, {len(groups[largest])} of them in {largest!r}."


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    description = build_parser().parse_args(arguments)
    parts = convert_description(description, lambda line: print(line, flush=True))  # noqa: T201
    for part, path in parts.items():
        folder = os.path.dirname(path)
        name = os.path.basename(os.path.abspath(folder)) if part == WHOLE else part  # as train/ and val/, made apart
        words = ["--register", f"my_{name}", os.path.join(folder, "images"), os.path.splitext(path)[0], path]
        print(shlex.join(words))  # noqa: T201


if __name__ == "__main__":
    run_command(main)
