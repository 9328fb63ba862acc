"""Files of source datasets: JSON, images by name, label tables, PNGs of ids."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from ...coco_json import load_json

__all__ = [
    "CONVERSION_RECORD",
    "IMAGE_ENDINGS",
    "MALFORMED",
    "ImageIndex",
    "files_below",
    "images_below",
    "read_ids",
    "read_lines",
    "read_table",
    "read_yaml",
    "short_names",
    "stem",
]

CONVERSION_RECORD = "conversion.json"
"""File in the folder of a converted dataset that says what it was made from."""

IMAGE_ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

MALFORMED = (ValueError, OSError, KeyError, TypeError, IndexError, AttributeError, OverflowError, SyntaxError)
"""What reading malformed annotations may raise."""


class _WithoutAliases(yaml.SafeLoader):
    """A few aliases of aliases stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1} has an alias, which is not read")
        return super().compose_node(parent, index)


def read_yaml(path: str) -> Any:
    """Contents of a YAML file, UTF-8, of plain values.

    Raises:
        ValueError: there is no such file, or it is no YAML, or it has aliases.
    """
    try:
        with open(path, encoding="utf-8-sig") as f:
            return yaml.load(f, _WithoutAliases)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML in UTF-8: {error}.") from error


def read_lines(path: str, *, numbered: bool = False) -> list[str]:
    """Lines of a text file, UTF-8, without the space around them; empty ones only if ``numbered``, up to the last line.

    Raises:
        ValueError: there is no such file, or it is no text.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if "\0" in text:
        raise ValueError(f"{path} is no text: it has a character 0. Export it again.")
    lines = [line.strip() for line in text.splitlines() if numbered or line.strip()]
    while lines and not lines[-1]:
        del lines[-1]
    return lines


def stem(path: str) -> str:
    """File name without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]


def images_below(folder: str) -> list[str]:
    """Image files of a folder and its subfolders, as paths relative to it with ``/``, sorted.

    Raises:
        ValueError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"There is no folder {folder}.")
    return [path for path in files_below(folder) if os.path.splitext(path)[1].lower() in IMAGE_ENDINGS]


def files_below(folder: str) -> list[str]:
    """Files of a folder and its subfolders, as paths relative to it with ``/``, sorted; without what is hidden, and
    without what a conversion wrote there.
    """
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        if any(f.startswith(CONVERSION_RECORD) for f in files):  # or the lock of this name
            folders.clear()
            continue
        folders[:] = [f for f in folders if not f.startswith(".")]
        names = [f for f in files if not f.startswith(".")]
        found += [os.path.relpath(os.path.join(root, f), folder).replace(os.sep, "/") for f in names]
    return sorted(found)


class ImageIndex:
    """Finds the image that an annotation means: by its path, else by its file name, in a list of folders."""

    def __init__(self, folders: Iterable[str]) -> None:
        """``folders`` are looked through in this order; those that do not exist are passed over."""
        self.folders = [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]
        self._by_name: dict[str, list[str]] | None = None

    def find(self, name: str) -> str:
        """Path of an image, by the name that the annotation gives; another ending is tried if that one is missing.

        Raises:
            ValueError: there is none, or more than one of that name in different folders.
        """
        name = name.replace("\\", "/")
        for folder in self.folders:
            path = os.path.join(folder, name)
            if not os.path.isabs(name) and ".." not in name.split("/") and os.path.isfile(path):
                return path
        known = self._names()
        base = name.split("/")[-1]
        of_that_name = known.get(base) or known.get(stem(base)) or []
        found = _most_alike([path for path in of_that_name if self._may_be(path, os.path.dirname(name))], name)
        if len(found) == 1:
            return found[0]
        where = ", ".join(self.folders) or "no folder that exists"
        if found:
            raise ValueError(f"{name!r} is there {len(found)} times, such as {found[0]} and {found[1]}")
        raise ValueError(f"there is no image {name!r} in {where}")

    def _may_be(self, path: str, below: str) -> bool:
        """Whether a file of the name may be meant: where its folder has what the annotation gives, only in there."""
        if not below or os.path.isabs(below) or ".." in below.split("/"):
            return True
        places = [os.path.join(folder, below, "") for folder in self.folders if path.startswith(f"{folder}{os.sep}")]
        places = [place for place in places if os.path.isdir(place)]
        return not places or path.startswith(tuple(places))

    def below(self, path: str) -> str:
        """What a path that was found is called below its folder, with ``/``."""
        for folder in self.folders:
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            if not relative.startswith("../"):
                return relative
        return os.path.basename(path)

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for folder in self.folders:
                for relative in images_below(folder):
                    path = os.path.join(folder, relative)
                    for key in {os.path.basename(relative), stem(relative)}:
                        self._by_name.setdefault(key, []).append(path)
            self._by_name = {name: _without_repeats(paths) for name, paths in self._by_name.items()}
        return self._by_name


def _most_alike(paths: Sequence[str], name: str) -> list[str]:
    """Those of several files whose folders are named most like those that the annotation gives, from the last on."""
    wanted = name.split("/")[-2::-1]

    def alike(path: str) -> int:
        folders = os.path.dirname(path).replace(os.sep, "/").split("/")[::-1]
        pairs = enumerate(zip(wanted, folders, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(wanted), len(folders)))

    best = max(map(alike, paths), default=0)
    return [path for path in paths if alike(path) == best]


def short_names(paths: Sequence[str]) -> list[str]:
    """What the result calls images whose files may lie anywhere: by file name, or below the folder that all have in
    common where two have the same one.
    """
    names = [os.path.basename(path) for path in paths]
    if len({os.path.splitext(name)[0].lower() for name in names}) == len(set(paths)):
        return names
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [os.path.relpath(path, common).replace(os.sep, "/") for path in paths]


def _without_repeats(paths: Sequence[str]) -> list[str]:
    """One path a file: folders that are looked through may lie in one another."""
    return list({os.path.realpath(path): path for path in paths}.values())


def read_ids(path: str, *, deep: bool = False, exact: bool = True, alpha: bool = False) -> npt.NDArray[np.int32]:
    """A PNG of ids: int32 (H, W) for gray and palette images, uint8 (H, W, 3) channels for colours.

    With ``alpha``, what is opaque in part has (H, W, 4), and so has a palette image that shows black.

    Raises:
        ValueError: the file is missing or broken, has 8 bits where ``deep`` says that there must be more, or is
            compressed with loss where ``exact``.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if exact and image.format in ("JPEG", "MPO", "WEBP"):
                raise ValueError(f"it is a {image.format}, whose values are not exact: export PNGs")
            if deep and not image.mode.startswith("I"):
                raise ValueError("it has 8 bits a pixel, where 16 are needed: it was saved anew by another program")
            if alpha and (image.has_transparency_data or _shows_black(image)):
                return np.asarray(image.convert("RGBA"))
            if image.mode in ("RGB", "RGBA"):
                return np.asarray(image.convert("RGB"))
            pixels = np.asarray(image)
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}") from error
    except Exception as error:  # Pillow's decoders have types of their own
        raise ValueError(f"{path} cannot be read ({error})") from error
    if pixels.ndim != 2 or pixels.dtype.kind not in "iub":
        raise ValueError(f"{path} must have one channel of whole numbers, got {pixels.dtype} {pixels.shape}")
    return pixels.astype(np.int32)


def _shows_black(image: Image.Image) -> bool:
    """Whether a palette image has black pixels."""
    return image.mode == "P" and any(color == (0, 0, 0) for _, color in image.convert("RGB").getcolors(256) or ())


def read_table(path: str) -> list[dict[str, Any]]:
    """A table of labels: ``id``, ``name`` and, if it says so, ``isthing`` and ``color``.

    A YAML or JSON list of such rows, a mapping id → name or a list of names (ids from 0), a CSV with a header, or
    lines ``id: name`` as COCO-stuff has them.

    Raises:
        ValueError: none of these, or a row without id or name.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in (".csv", ".tsv", ".txt"):
        content: Any = _read_lines(path)
    else:
        content = load_json(path) if ending == ".json" else read_yaml(path)
    if isinstance(content, Mapping) and len(content) == 1 and not str(next(iter(content))).lstrip("-").isdigit():
        content = next(iter(content.values()))
    if isinstance(content, Mapping):
        content = [{"id": i, "name": name} for i, name in content.items()]
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} is no table of labels: it must be a list of rows with id and name.")
    rows = [row if isinstance(row, Mapping) else {"id": i, "name": row} for i, row in enumerate(content)]
    return [_row(row, path) for row in rows]


def _read_lines(path: str) -> list[dict[str, Any]]:
    """A CSV, or lines ``id: name``."""
    lines = read_lines(path)
    pairs = [re.fullmatch(r"(\d+)\s*:\s*(.+)", line) for line in lines]
    if pairs and all(pairs):
        return [{"id": pair[1], "name": pair[2]} for pair in pairs if pair]
    delimiter = next((d for d in "\t;," if lines and d in lines[0]), ",")
    rows = list(csv.DictReader(lines, delimiter=delimiter))
    return [{str(k).strip().lower(): str(v).strip() for k, v in row.items() if k and v} for row in rows]


def _row(row: Mapping[str, Any], path: str) -> dict[str, Any]:
    keys = {str(k).lower(): v for k, v in row.items()}
    if "name" not in keys or not str(keys.get("id", "")).lstrip("-").isdigit():
        raise ValueError(f"{path}: a row of labels needs a whole number id and a name, got {dict(row)}.")
    result = {"id": int(keys["id"]), "name": str(keys["name"])}
    isthing = keys.get("isthing", keys.get("thing"))
    if isthing is not None:
        flags = {"1": True, "true": True, "yes": True, "thing": True, "0": False, "false": False, "no": False}
        flags["stuff"] = False
        if str(isthing).lower() not in flags:
            raise ValueError(f"{path}: isthing of {result['name']!r} must be 0 or 1, got {isthing!r}.")
        result["isthing"] = flags[str(isthing).lower()]
    return result | ({"color": keys["color"]} if keys.get("color") else {})
