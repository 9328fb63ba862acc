"""Write a dataset in COCO panoptic format, ground truth or predictions, in formats that other tools read.

For example::

    python -m panoptic_fpn_ext.data.export coco panoptic_val.json panoptic_val --images images --output exported

``coco`` is a COCO instances JSON with run-length masks of things and crowds, and PNGs of stuff category ids;
``semantic-instance`` is a pair of PNGs an image with a table of labels; ``cityscapes`` is ``gtFine`` with instance ids
and ``label_colors.txt``. With ``--images`` the images are linked where each has them. ``python -m
panoptic_fpn_ext.data.convert`` reads all three back, exactly to the pixel.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..coco_json import read_panoptic
from ..command import num_cores, run_command, whole
from ..panoptic_map import check_panoptic_map, relabel
from ..panoptic_png import read_panoptic_png
from .formats.conversion import place_image, write_json
from .formats.id_maps import is_void

__all__ = ["TARGETS", "export"]

_MAX_UINT16 = 2**16 - 1
_FIRST_INSTANCE = 1000

_Row = dict[str, Any]


def export(
    target: str, panoptic_json: str, pngs: str, output: str, *, images: str | None = None, processes: int = 0
) -> None:
    """Write a dataset in another format.

    Args:
        target: a name of :data:`TARGETS`.
        panoptic_json, pngs: as of ``register_coco_panoptic``.
        output: folder; made if it does not exist.
        images: folder of the images, to be linked into the output, for tools that want them there.
        processes: how many; 0 for one a core.

    Raises:
        FileNotFoundError, ValueError: the dataset is not sound, the format cannot carry it, or the output is the
            dataset's own folder.
        OSError: the output cannot be written.
    """
    if os.path.realpath(output) in {os.path.realpath(path) for path in (os.path.dirname(panoptic_json), pngs)}:
        raise ValueError(f"{output} is the dataset's own folder: name one by --output that holds the export alone.")
    content = read_panoptic(panoptic_json)
    image_of = {row["id"]: row for row in content["images"]}
    rows = [(image_of[row["image_id"]], row) for row in content["annotations"]]
    names = [_stem(image["file_name"]) for image, _ in rows]
    outside = [n for n in names if os.path.isabs(n) or ".." in n.split("/")]
    if outside or len(set(names)) < len(names):
        raise ValueError(
            f"{panoptic_json}: image names must be different and below one folder, got {outside or names}."
        )
    write = TARGETS[target](content, output)
    work = _Export(rows, pngs, write.image)
    processes = min(processes or num_cores(), len(rows))
    loader = DataLoader(work, batch_size=None, num_workers=processes if processes > 1 else 0, collate_fn=_as_it_is)
    if images is not None:
        _place_images([image["file_name"] for image, _ in rows], images, os.path.join(output, write.images))
    write.finish(list(tqdm(loader, total=len(rows), desc=f"Export to {output}", unit="image")))


def _place_images(names: Sequence[str], folder: str, target: str) -> None:
    """Link images, or say which are missing; ``target`` has ``{}`` for the name without its ending."""
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} of {len(names)} images, such as {missing[0]!r}.")
    for name in names:
        place_image(
            os.path.join(folder, name), target.replace("{}", _stem(name)) + os.path.splitext(name)[1], copy=False
        )


class _Export(Dataset[Any]):
    """Exports an image when it is asked for, in whichever process asks."""

    def __init__(self, rows: Sequence[tuple[_Row, _Row]], pngs: str, write: Callable[..., Any]) -> None:
        self._rows, self._pngs, self._write = rows, pngs, write

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        image, annotation = self._rows[index]
        path = os.path.join(self._pngs, annotation["file_name"])
        ids = read_panoptic_png(path)
        if ids.shape != (image["height"], image["width"]):
            raise ValueError(f"{path} has (height, width) {ids.shape}, the JSON {image['height'], image['width']}.")
        check_panoptic_map(ids, annotation["segments_info"], path)
        return self._write(image, annotation["segments_info"], ids)


def _as_it_is(result: Any) -> Any:
    return result


def _stem(file_name: str) -> str:
    return os.path.splitext(file_name.replace("\\", "/"))[0]


def _write_ids(path: str, ids: npt.NDArray[np.integer]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    Image.fromarray(ids).save(temporary, format="PNG")
    os.replace(temporary, path)


class _Coco:
    """``instances.json``, and ``stuff/`` if there is stuff, whose category ids must be 1 to 254."""

    images = "images/{}"

    def __init__(self, content: _Row, output: str) -> None:
        self._categories = {row["id"]: row for row in content["categories"]}
        self._content, self._output = content, output
        self._stuff = [i for i, row in self._categories.items() if not row["isthing"]]
        if any(not 0 < i < 255 for i in self._stuff):
            raise ValueError(f"PNGs of stuff hold ids from 1 to 254, but stuff has ids {self._stuff}.")

    def image(self, image: _Row, segments: Sequence[_Row], ids: npt.NDArray[np.int32]) -> list[_Row]:
        """The annotations of an image, whose stuff is written."""
        stuff = [s for s in segments if not self._categories[s["category_id"]]["isthing"]]
        if self._stuff:
            labels = relabel(ids, [s["id"] for s in stuff], [s["category_id"] for s in stuff], 0)
            _write_ids(f"{self._output}/stuff/{_stem(image['file_name'])}.png", labels.astype(np.uint8))
        return [_instance(image, s, ids == s["id"]) for s in segments if s not in stuff]

    def finish(self, found: Sequence[list[_Row]]) -> None:
        """The JSON."""
        annotations = [{"id": i, **row} for i, row in enumerate((row for rows in found for row in rows), start=1)]
        rows = list(self._categories.values())
        content = {"images": self._content["images"], "annotations": annotations, "categories": rows}
        os.makedirs(self._output, exist_ok=True)
        write_json(os.path.join(self._output, "instances.json"), content)


def _instance(image: _Row, segment: _Row, mask: npt.NDArray[np.bool_]) -> _Row:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "image_id": image["id"],
        "category_id": segment["category_id"],
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
        "iscrowd": segment["iscrowd"],
        "area": int(np.count_nonzero(mask)),
        "bbox": coco_mask.toBbox(rle).tolist(),
    }


class _Numbered:
    """What formats with numbered instances have in common: 1, 2, … in a category of things, 0 for crowds and stuff."""

    images = "images/{}"

    def __init__(self, content: _Row, output: str) -> None:
        self._categories = content["categories"]
        self._isthing = {row["id"]: bool(row["isthing"]) for row in self._categories}
        self._output = output

    def _numbers(self, segments: Sequence[_Row]) -> list[int]:
        counts: dict[int, int] = {}
        numbers = []
        for segment in segments:
            category = segment["category_id"]
            counted = self._isthing[category] and not segment["iscrowd"]
            counts[category] = counts.get(category, 0) + counted
            numbers.append(counts[category] if counted else 0)
        return numbers


class _SemanticInstance(_Numbered):
    """``semantic/`` and ``instance/``, 16-bit where 8 do not suffice, and ``labels.csv``; 0 is void."""

    def __init__(self, content: _Row, output: str) -> None:
        super().__init__(content, output)
        if not all(0 < row["id"] <= _MAX_UINT16 for row in self._categories):
            raise ValueError(f"PNGs of categories hold ids from 1 to {_MAX_UINT16}; give the categories other ids.")

    def image(self, image: _Row, segments: Sequence[_Row], ids: npt.NDArray[np.int32]) -> None:
        """Both PNGs of an image."""
        listed = [s["id"] for s in segments]
        maps = {"semantic": [s["category_id"] for s in segments], "instance": self._numbers(segments)}
        for name, values in maps.items():
            dtype = np.uint8 if max(values, default=0) < 256 else np.uint16
            path = f"{self._output}/{name}/{_stem(image['file_name'])}.png"
            _write_ids(path, relabel(ids, listed, values, 0).astype(dtype))

    def finish(self, found: Sequence[None]) -> None:
        """The table of labels."""
        path = os.path.join(self._output, "labels.csv")
        with open(f"{path}.tmp", "w", encoding="utf-8", newline="") as f:
            writer = csv.writer(f)
            writer.writerow(["id", "name", "isthing"])
            writer.writerows([row["id"], row["name"], int(row["isthing"])] for row in self._categories)
        os.replace(f"{path}.tmp", path)


class _Cityscapes(_Numbered):
    """``gtFine/default/*_gtFine_instanceIds.png``: below 1000 a label, from there on 1000 times a label's and a number.

    The labels are the lines of ``label_colors.txt``, counted from 0, the first of which is background.
    """

    images = "leftImg8bit/default/{}_leftImg8bit"

    def __init__(self, content: _Row, output: str) -> None:
        super().__init__(content, output)
        if len(self._categories) > _MAX_UINT16 // _FIRST_INSTANCE - 1:
            raise ValueError(
                f"16-bit instance ids of Cityscapes' kind hold 64 categories, not {len(self._categories)}."
            )
        void = [row["name"] for row in self._categories if is_void(row["name"])]
        if void:
            raise ValueError(f"Readers of this format take {', '.join(void)} for void: give the category another name.")
        self._labels = {row["id"]: label for label, row in enumerate(self._categories, start=1)}

    def image(self, image: _Row, segments: Sequence[_Row], ids: npt.NDArray[np.int32]) -> None:
        """The PNG of an image."""
        numbers = self._numbers(segments)
        if max(numbers, default=0) > _FIRST_INSTANCE:
            raise ValueError(f"{image['file_name']} has more than {_FIRST_INSTANCE} things of one category.")
        labels = [self._labels[s["category_id"]] for s in segments]
        values = [label if not n else label * _FIRST_INSTANCE + n - 1 for label, n in zip(labels, numbers, strict=True)]
        path = f"{self._output}/gtFine/default/{_stem(image['file_name'])}_gtFine_instanceIds.png"
        _write_ids(path, relabel(ids, [s["id"] for s in segments], values, 0).astype(np.uint16))

    def finish(self, found: Sequence[None]) -> None:
        """The table of labels."""
        rows = [((0, 0, 0), "background"), *((_color(row, i), row["name"]) for i, row in enumerate(self._categories))]
        path = os.path.join(self._output, "label_colors.txt")
        with open(f"{path}.tmp", "w", encoding="utf-8") as f:
            f.writelines(f"{' '.join(map(str, color))} {name}\n" for color, name in rows)
        os.replace(f"{path}.tmp", path)


def _color(row: Mapping[str, Any], index: int) -> tuple[int, int, int]:
    given = row.get("color") or [37 * (index + 1) % 256, 91 * (index + 1) % 256, 153 * (index + 1) % 256]
    return int(given[0]), int(given[1]), int(given[2])


TARGETS: Final[dict[str, Callable[[_Row, str], Any]]] = {
    "coco": _Coco,
    "semantic-instance": _SemanticInstance,
    "cityscapes": _Cityscapes,
}
"""Writers by the name that the command line has for their format."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m panoptic_fpn_ext.data.export",
        description=(__doc__ or "").replace("``", "").replace("::", ":"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("json", help="the panoptic JSON")
    parser.add_argument("pngs", help="folder of its panoptic PNGs")
    parser.add_argument("--output", required=True, help="folder of the result")
    parser.add_argument("--images", help="folder of its images, which are linked into the result")
    parser.add_argument("--processes", type=whole(0), default=0, help="default: one a core")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    args = _parser().parse_args(arguments)
    export(args.target, args.json, args.pngs, args.output, images=args.images, processes=args.processes)


if __name__ == "__main__":
    run_command(main)
