"""YOLO segmentation: a YAML, and one text file of polygons an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .files import images_below, read_lines, read_yaml, short_names
from .regions import Region, Source, SourceImage
from .shapes import Shape, regions_of_shapes
from .splits import part_name

__all__ = ["read_yolo"]

_PARTS = ("train", "val", "test")


def read_yolo(description: str, images: str | None = None) -> Source:
    """YOLO segmentation: polygons in one text file an image.

    ``data.yaml`` has ``names`` and the folders or lists of train, val and test; or there are ``classes.txt`` and
    ``images``. The labels of ``…/images/x.jpg`` are in ``…/labels/x.txt``.

    Args:
        description: the YAML, the ``classes.txt``, or the folder of one of them.
        images: folder that the YAML's paths are below, or of the images where it names none; its own folder, and
            ``images`` there, if not given.

    Raises:
        ValueError: the YAML has no names or no images.
    """
    description = _description(description)
    content = _content(description)
    names = content.get("names") if isinstance(content, Mapping) else None
    if not isinstance(names, list | Mapping) or not names:
        raise ValueError(f"{description} is no YOLO description: it has no names.")
    rows: dict[Any, Any] = dict(names.items() if isinstance(names, Mapping) else enumerate(names))
    labels = {str(i): str(name) for i, name in rows.items()}
    ids = {name: int(i) + 1 for i, name in labels.items()}
    found, notes = _images(content, description, images, partial(_regions_of_file, names=labels, ids=ids))
    files = [path for path in (_labels_of(image.path) for image in found) if os.path.isfile(path)]
    if not files:
        raise ValueError(f"{description}: no image has labels: there is no {_labels_of(found[0].path)}, for example.")
    alone = _labels_without_image(files)
    notes += [f"{len(alone)} label files without an image, such as {alone[0]}"] if alone else []
    return Source([{"id": i, "name": name} for name, i in ids.items()], found, [description, *files], notes=notes)


def _labels_without_image(used: Sequence[str]) -> list[str]:
    """Label files beside those of the images; classes.txt and the like are none."""
    folders = sorted({os.path.dirname(path) for path in used})
    paths = [os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if name.endswith(".txt")]
    return sorted(
        p for p in set(paths) - set(used) if os.path.basename(p) not in ("classes.txt", "train.txt", "val.txt")
    )


def _description(path: str) -> str:
    if not os.path.isdir(path):
        return path
    files = sorted(os.listdir(path))
    found = [f for f in files if f.endswith((".yaml", ".yml"))] + [f for f in files if f == "classes.txt"]
    return os.path.join(path, found[0] if found else "data.yaml")


def _content(description: str) -> Any:
    if not description.endswith(".txt"):
        return read_yaml(description)
    return {"names": read_lines(description, numbered=True)}


def _images(
    content: Mapping[str, Any], description: str, images: str | None, regions: Callable[..., Any]
) -> tuple[list[SourceImage], list[str]]:
    """Images of all parts, and what is missing; where there are several, a part is a folder of the result."""
    folder = os.path.abspath(images or os.path.dirname(os.path.abspath(description)))
    root = folder if images else _yolo_root(description, content)
    parts = {str(key): value for key, value in content.items() if part_name(str(key)) in _PARTS and value}
    parts = parts or {"all": folder if images else f"{folder}/images"}  # as Label Studio and supervision write it
    found, notes = [], []
    for part, entries in parts.items():
        split = part_name(part)
        listed = _yolo_images(entries, root, folder)
        if not listed:
            notes.append(f"{part}: there is no image in {entries} of {root}")
        for path, relative in listed:
            name = relative if len(parts) == 1 else f"{split}/{relative}"
            own = partial(regions, path=_labels_of(path))
            found.append(SourceImage(path, name, own, split=split if len(parts) > 1 else None))
    if not found:
        raise ValueError(f"{description} names no folder with images (train, val, test). {'; '.join(notes)}".strip())
    return found, notes


def _yolo_root(description: str, content: Mapping[str, Any]) -> str:
    folder = os.path.dirname(os.path.abspath(description))
    root = os.path.join(folder, str(content.get("path") or ""))
    return root if os.path.isdir(root) else folder


def _yolo_images(entries: Any, root: str, folder: str) -> list[tuple[str, str]]:
    """Images of a part, folders or text files that list images: their paths, and below what is listed."""
    result: list[tuple[str, str]] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        entry = str(entry)
        # Roboflow writes "../train/images" for the folder "train/images" beside the YAML.
        places = [
            os.path.join(root, entry),
            os.path.join(folder, entry),
            os.path.join(folder, entry.removeprefix("../")),
        ]
        place = next((p for p in places if os.path.exists(p)), places[0])
        if os.path.isfile(place):
            paths = [_listed(line, os.path.dirname(place), root) for line in read_lines(place)]
            result += zip(paths, short_names(paths), strict=True)
        elif os.path.isdir(place):
            result += [(os.path.join(place, name), name) for name in images_below(place)]
    return result


def _listed(line: str, folder: str, root: str) -> str:
    """The image that a line of a list means: beside the list, below the root, or below ``data``, as CVAT writes it."""
    places = [os.path.join(folder, line), os.path.join(root, line), os.path.join(folder, line.removeprefix("data/"))]
    return os.path.normpath(next((p for p in places if os.path.isfile(p)), places[0]))


def _labels_of(path: str) -> str:
    before, separator, after = path.rpartition(f"{os.sep}images{os.sep}")
    base = f"{before}{os.sep}labels{os.sep}{after}" if separator else path
    return os.path.splitext(base)[0] + ".txt"


def _regions_of_file(
    size: tuple[int, int], path: str, names: Mapping[str, str], ids: Mapping[str, int]
) -> tuple[list[Region], Mapping[str, int]]:
    """``names`` by the number of the class in the file, ``ids`` by name."""
    if not os.path.isfile(path):
        return [], {"image without a label file": 1}
    lines = [line.split() for line in read_lines(path)]
    shapes = [_shape(values, names, f"{path}, line {i}") for i, values in enumerate(lines, start=1)]
    return regions_of_shapes(size, shapes, ids, relative=True)


def _shape(values: Sequence[str], names: Mapping[str, str], where: str) -> Shape:
    try:
        number, points = str(int(values[0])), [float(v) for v in values[1:]]
    except ValueError:
        raise ValueError(f"{where}: a class and coordinates are needed, got {' '.join(values)[:60]!r}") from None
    if number not in names:
        raise ValueError(f"{where}: class {number} is not in names")
    if len(points) % 2 or len(points) < 4:
        raise ValueError(f"{where}: coordinates come in pairs, got {len(points)} numbers")
    return Shape(label=names[number], kind="box" if len(points) == 4 else "polygon", points=points)
