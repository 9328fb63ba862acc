"""Writers of a small dataset in the source formats that have maps or masks of pixels.

``MAP_SOURCES`` is that part of ``SOURCES`` in ``source_writers.py``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from source_drawing import (
    BOXES,
    CLASSES,
    LAYERS,
    MARGINS,
    THINGS,
    Drawing,
    H,
    W,
    box_mask,
    drawing,
    save,
    save_photo,
    write_file,
)

from panoptic_fpn_ext.panoptic_png import id2rgb


def _maps(root: Path, photo: str, maps: dict[str, Callable[[Drawing], npt.NDArray[Any]]]) -> None:
    """A photograph and maps of each image; ``{}`` stands for its name in the paths."""
    for name in MARGINS:
        save_photo(root / photo.format(name))
        for path, draw in maps.items():
            save(root / path.format(name), draw(drawing(name)))


_TABLE = "id,name,isthing\n1,road,0\n2,car,1\n3,person,1\n"
_COLORS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)], np.uint8)
_LABEL_COLORS = "0 0 0 background\n128 0 0 road\n0 128 0 car\n0 0 128 person\n"


def _times(factor: int) -> Callable[[Drawing], npt.NDArray[Any]]:
    return lambda d: d.semantic.astype(np.uint16) * factor + d.instance


def _channels(*names: str) -> Callable[[Drawing], npt.NDArray[Any]]:
    return lambda d: np.stack([getattr(d, name, np.zeros_like(d.semantic)) for name in names], 2)


def _cityscapes(root: Path) -> None:
    ids = np.array([0, 7, 26, 24])

    def draw(d: Drawing) -> npt.NDArray[Any]:
        return np.where(d.instance > 0, ids[d.semantic] * 1000 + d.instance, ids[d.semantic]).astype(np.uint16)

    _maps(root, "leftImg8bit/train/x/{}_leftImg8bit.png", {"gtFine/train/x/{}_gtFine_instanceIds.png": draw})


def _mapillary(root: Path) -> None:
    _maps(root, "training/images/{}.jpg", {"training/v2.0/instances/{}.png": _times(256)})
    rows = [{"name": label, "readable": label, "instances": label != "road", "evaluate": True} for label in CLASSES]
    write_file(root / "config_v2.0.json", {"labels": [{"name": "v", "instances": False, "evaluate": False}, *rows]})


def _ade20k(root: Path) -> None:
    def objects(d: Drawing) -> npt.NDArray[Any]:
        kind = np.where(d.instance > 0, d.semantic, 0)
        return np.stack([kind, d.instance, np.zeros_like(kind)], 2).astype(np.uint8)

    maps = {"annotations/training/{}.png": lambda d: d.semantic, "annotations_instance/training/{}.png": objects}
    _maps(root, "images/training/{}.jpg", maps)
    rows = [f"{i}\t0.1\t1\t1\t{label}" for i, label in enumerate(CLASSES, start=1)]
    write_file(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows) + "\n")


def _ade20k_full(root: Path) -> None:
    numbers = np.array([0, 2131, 401, 1831])

    def draw(d: Drawing) -> npt.NDArray[Any]:
        found = numbers[d.semantic]
        return np.stack([found // 256 * 10, found % 256, d.instance * 20], 2).astype(np.uint8)

    _maps(root, "images/training/{}.jpg", {"images/training/{}_seg.png": draw})
    for name in MARGINS:
        rows = [{"name": label, "name_ndx": int(n)} for label, n in zip(CLASSES, numbers[1:], strict=True)]
        write_file(root / "images" / "training" / f"{name}.json", {"annotation": {"object": rows}})


def _voc(root: Path) -> None:
    classes, objects = (lambda d: _COLORS[d.semantic]), (lambda d: np.stack([d.instance * 50] * 3, 2))
    maps = {"SegmentationClass/{}.png": classes, "SegmentationObject/{}.png": objects}
    _maps(root, "JPEGImages/{}.jpg", maps)
    lines = ["background:0,0,0::", "road:128,0,0::", "car:0,128,0::", "person:0,0,128::"]
    write_file(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    write_file(root / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")


def _kitti(root: Path) -> None:
    _maps(root, "default/image_2/{}.png", {"default/instance/{}.png": _times(256)})
    write_file(root / "label_colors.txt", _LABEL_COLORS)


def _kitti_step(root: Path) -> None:
    ids = np.array([255, 0, 13, 11], np.uint8)  # void, road, car, person

    def draw(d: Drawing) -> npt.NDArray[Any]:
        return np.stack([ids[d.semantic], np.zeros_like(d.semantic), d.instance], 2)

    _maps(root, "images/0000/{}.png", {"maps/0000/{}.png": draw})


def _coco_stuff(root: Path) -> None:
    _maps(root, "images/{}.jpg", {"maps/{}.png": lambda d: d.semantic})
    write_file(root / "labels.txt", "0: unlabeled\n1: road\n2: car\n3: person\n")


def _encoded(factor_or_channels: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        _maps(root, "images/{}.jpg", {"maps/{}.png": factor_or_channels})
        write_file(root / "labels.csv", _TABLE)

    return write


def _semantic_instance(root: Path) -> None:
    maps = {"semantic/{}.png": lambda d: d.semantic, "instances/{}.png": lambda d: d.instance}
    _maps(root, "images/{}.jpg", maps)
    write_file(root / "labels.csv", _TABLE)


def _masks(root: Path) -> None:
    for name in MARGINS:
        save_photo(root / "images" / f"{name}.png")
        for number, (label, box) in enumerate(BOXES):
            save(root / "masks" / name / f"{label}_{number}.png", box_mask(box, name).astype(np.uint8) * 255)


def _panoptic(root: Path) -> None:
    images, annotations = [], []
    for number, name in enumerate(MARGINS, start=1):
        semantic, instance = drawing(name)
        ids = semantic.astype(np.int32) * 300 + instance
        save_photo(root / "images" / f"{name}.png")
        save(root / "pngs" / f"{name}.png", id2rgb(ids))
        rows = [_segment(ids, int(i)) for i in np.unique(ids) if i]
        images.append({"id": number, "file_name": f"{name}.png", "height": H, "width": W + MARGINS[name]})
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": rows})
    categories = [{"id": i, "name": label, "isthing": int(i > 1)} for i, label in enumerate(CLASSES, start=1)]
    write_file(root / "panoptic.json", {"images": images, "annotations": annotations, "categories": categories})


def _segment(ids: npt.NDArray[np.int32], number: int) -> dict[str, Any]:
    ys, xs = np.nonzero(ids == number)
    bbox = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    return {"id": number, "category_id": number // 300, "iscrowd": 0, "area": len(xs), "bbox": bbox}


_PATHS = "{root}/images {root}/maps {root}/labels.csv"
MAP_SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cityscapes": (_cityscapes, "cityscapes {root}"),
    "mapillary": (_mapillary, "mapillary {root}"),
    "ade20k": (_ade20k, f"ade20k {{root}} {THINGS}"),
    "full ade20k": (_ade20k_full, f"ade20k {{root}} {THINGS}"),
    "voc": (_voc, f"voc {{root}} {THINGS}"),
    "kitti": (_kitti, f"kitti {{root}} {THINGS}"),
    "kitti-step": (_kitti_step, "kitti-step {root}/images {root}/maps"),
    "coco-stuff": (_coco_stuff, "coco-stuff {root}/images {root}/maps {root}/labels.txt"),
    "value/256": (_encoded(_times(256)), f"encoded {_PATHS} --encoding value/256"),
    "value/1000": (_encoded(_times(1000)), f"encoded {_PATHS} --encoding value/1000"),
    "red,blue": (_encoded(_channels("semantic", "", "instance")), f"encoded {_PATHS} --encoding red,blue"),
    "semantic-instance": (
        _semantic_instance,
        "semantic-instance {root}/images {root}/semantic {root}/instances {root}/labels.csv",
    ),
    "masks": (_masks, f"masks {{root}}/masks --images {{root}}/images {LAYERS}"),
    "panoptic": (_panoptic, "panoptic {root}/panoptic.json {root}/pngs {root}/images"),
}
