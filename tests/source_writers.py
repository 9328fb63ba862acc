"""Writers of a small dataset in every source format: two photographs of one drawing, with different margins.

``SOURCES`` has for each name the writer, which gets a folder, and the description that converts it, where ``{root}``
stands for the folder.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from panoptic_fpn_ext.panoptic_png import id2rgb

H, W = 24, 32
CLASSES = ["road", "car", "person"]
# Visible parts: a road, two cars, a person on the second car; the first rows are unlabelled.
BOXES = [("road", (0, 4, 30, 22)), ("car", (2, 6, 9, 15)), ("car", (14, 8, 27, 18)), ("person", (17, 6, 22, 20))]
THINGS = "--things car,person"
LAYERS = f"{THINGS} --layers 'road < car < person'"
MARGINS = {"a": 0, "b": 6}
"""Columns that an image has more than the drawing, by its name: maps of two images do not fit one another."""

Map = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


class Drawing(NamedTuple):
    """Class from 1 (0 is void) and number of the instance from 1 (0 is stuff): uint8 (H, W)."""

    semantic: Map
    instance: Map


def drawing(name: str) -> Drawing:
    """Of image ``a`` or ``b``."""
    semantic, instance = np.zeros((2, H, W + MARGINS[name]), np.uint8)
    for number, (label, (x0, y0, x1, y1)) in enumerate(BOXES):
        semantic[y0:y1, x0:x1] = CLASSES.index(label) + 1
        instance[y0:y1, x0:x1] = number
    return Drawing(semantic, instance)


def segments(name: str) -> list[tuple[str, bytes]]:
    """Label and mask of each segment that a sound conversion has, sorted."""
    semantic, instance = drawing(name)
    keys = semantic.astype(int) * 10 + instance
    return sorted((CLASSES[k // 10 - 1], (keys == k).tobytes()) for k in np.unique(keys) if k)


def save(path: Path, pixels: npt.NDArray[Any]) -> None:
    """An image file, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _photo(path: Path) -> None:
    shape = (H, W + MARGINS[path.stem[0]], 3)
    save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def _corners(box: Box) -> list[list[int]]:
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _full(box: Box, name: str) -> npt.NDArray[np.bool_]:
    mask = np.zeros((H, W + MARGINS[name]), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def _maps(root: Path, photo: str, maps: dict[str, Callable[[Drawing], npt.NDArray[Any]]]) -> None:
    """A photograph and maps of each image; ``{}`` stands for its name in the paths."""
    for name in MARGINS:
        _photo(root / photo.format(name))
        for path, draw in maps.items():
            save(root / path.format(name), draw(drawing(name)))


def _coco(root: Path, form: str) -> None:
    def segmentation(box: Box, name: str) -> Any:
        if form == "polygons":
            return [np.ravel(_corners(box)).tolist()]
        rle = coco_mask.encode(np.asfortranarray(_full(box, name), dtype=np.uint8))
        return {"size": rle["size"], "counts": rle["counts"].decode()}

    images, rows = [], []
    for number, name in enumerate(MARGINS, start=1):
        _photo(root / "images" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "height": H, "width": W + MARGINS[name]})
        for label, box in BOXES:
            x0, y0, x1, y1 = box
            row = {"id": len(rows) + 1, "image_id": number, "category_id": CLASSES.index(label) + 1, "iscrowd": 0}
            bbox = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            rows.append({**row, **bbox, "segmentation": segmentation(box, name)})
    categories = [{"id": i, "name": label, "supercategory": ""} for i, label in enumerate(CLASSES, start=1)]
    _text(root / "instances.json", {"images": images, "annotations": rows, "categories": categories})


def _coco_with_stuff(root: Path) -> None:
    _coco(root, "polygons")
    content = json.loads((root / "instances.json").read_text())
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] > 1]
    _text(root / "instances.json", content)
    for name in MARGINS:
        save(root / "stuff" / f"{name}.png", _full(BOXES[0][1], name).astype(np.uint8))


def _cvat(root: Path) -> None:
    labels = "".join(f"<label><name>{label}</name></label>" for label in CLASSES)
    images = []
    for number, name in enumerate(MARGINS):
        _photo(root / "images" / f"{name}.png")
        shapes = []
        for z, (label, box) in enumerate(BOXES):
            x0, y0, x1, y1 = box
            if label == "person":
                runs = f"0, {(x1 - x0) * (y1 - y0)}"
                size = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
                shapes.append(f'<mask label="{label}" rle="{runs}" {size} z_order="{z}"/>')
            else:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in _corners(box))
                shapes.append(f'<polygon label="{label}" points="{points}" z_order="{z}"/>')
        size = f'width="{W + MARGINS[name]}" height="{H}"'
        images.append(f'<image id="{number}" name="{name}.png" {size}>{"".join(shapes)}</image>')
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    _text(root / "annotations.xml", f"<annotations>{meta}{''.join(images)}</annotations>")


def _label_studio(root: Path) -> None:
    tasks = []
    for number, name in enumerate(MARGINS, start=1):
        _photo(root / "images" / f"{name}.png")
        width = W + MARGINS[name]
        results = []
        for label, box in BOXES:
            points = (np.array(_corners(box)) / (width, H) * 100).tolist()
            size = {"original_width": width, "original_height": H}
            results.append({"type": "polygonlabels", "value": {"points": points, "polygonlabels": [label]}, **size})
        data = {"image": f"/data/upload/1/{name}.png"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results, "was_cancelled": False}]})
    _text(root / "export.json", tasks)


def _labelme(root: Path) -> None:
    for name in MARGINS:
        _photo(root / f"{name}.png")
        shapes: list[dict[str, Any]] = []
        for label, box in BOXES:
            shape = {"label": label, "points": _corners(box), "shape_type": "polygon", "group_id": None}
            if label == "person":
                png = io.BytesIO()
                Image.fromarray(np.full((box[3] - box[1], box[2] - box[0]), 255, np.uint8)).save(png, "PNG")
                corners = [[box[0], box[1]], [box[2] - 1, box[3] - 1]]
                mask = base64.b64encode(png.getvalue()).decode()
                shape |= {"shape_type": "mask", "points": corners, "mask": mask}
            shapes.append(shape)
        size = {"imageHeight": H, "imageWidth": W + MARGINS[name]}
        _text(root / f"{name}.json", {"shapes": shapes, "imagePath": f"{name}.png", "imageData": None, **size})


def _yolo(root: Path) -> None:
    _text(root / "data.yaml", f"train: images\nnc: 3\nnames: [{', '.join(CLASSES)}]\n")
    for name in MARGINS:
        _photo(root / "images" / f"{name}.png")
        rows = []
        for label, box in BOXES:
            values = (np.array(_corners(box)) / (W + MARGINS[name], H)).ravel()
            rows.append(f"{CLASSES.index(label)} " + " ".join(repr(float(value)) for value in values))
        _text(root / "labels" / f"{name}.txt", "\n".join(rows) + "\n")


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
    _text(root / "config_v2.0.json", {"labels": [{"name": "v", "instances": False, "evaluate": False}, *rows]})


def _ade20k(root: Path) -> None:
    def objects(d: Drawing) -> npt.NDArray[Any]:
        kind = np.where(d.instance > 0, d.semantic, 0)
        return np.stack([kind, d.instance, np.zeros_like(kind)], 2).astype(np.uint8)

    maps = {"annotations/training/{}.png": lambda d: d.semantic, "annotations_instance/training/{}.png": objects}
    _maps(root, "images/training/{}.jpg", maps)
    rows = [f"{i}\t0.1\t1\t1\t{label}" for i, label in enumerate(CLASSES, start=1)]
    _text(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows) + "\n")


def _ade20k_full(root: Path) -> None:
    numbers = np.array([0, 2131, 401, 1831])

    def draw(d: Drawing) -> npt.NDArray[Any]:
        found = numbers[d.semantic]
        return np.stack([found // 256 * 10, found % 256, d.instance * 20], 2).astype(np.uint8)

    _maps(root, "images/training/{}.jpg", {"images/training/{}_seg.png": draw})
    for name in MARGINS:
        rows = [{"name": label, "name_ndx": int(n)} for label, n in zip(CLASSES, numbers[1:], strict=True)]
        _text(root / "images" / "training" / f"{name}.json", {"annotation": {"object": rows}})


def _voc(root: Path) -> None:
    classes, objects = (lambda d: _COLORS[d.semantic]), (lambda d: np.stack([d.instance * 50] * 3, 2))
    maps = {"SegmentationClass/{}.png": classes, "SegmentationObject/{}.png": objects}
    _maps(root, "JPEGImages/{}.jpg", maps)
    lines = ["background:0,0,0::", "road:128,0,0::", "car:0,128,0::", "person:0,0,128::"]
    _text(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    _text(root / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")


def _kitti(root: Path) -> None:
    _maps(root, "default/image_2/{}.png", {"default/instance/{}.png": _times(256)})
    _text(root / "label_colors.txt", _LABEL_COLORS)


def _kitti_step(root: Path) -> None:
    ids = np.array([255, 0, 13, 11], np.uint8)  # void, road, car, person

    def draw(d: Drawing) -> npt.NDArray[Any]:
        return np.stack([ids[d.semantic], np.zeros_like(d.semantic), d.instance], 2)

    _maps(root, "images/0000/{}.png", {"maps/0000/{}.png": draw})


def _coco_stuff(root: Path) -> None:
    _maps(root, "images/{}.jpg", {"maps/{}.png": lambda d: d.semantic})
    _text(root / "labels.txt", "0: unlabeled\n1: road\n2: car\n3: person\n")


def _encoded(factor_or_channels: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        _maps(root, "images/{}.jpg", {"maps/{}.png": factor_or_channels})
        _text(root / "labels.csv", _TABLE)

    return write


def _semantic_instance(root: Path) -> None:
    maps = {"semantic/{}.png": lambda d: d.semantic, "instances/{}.png": lambda d: d.instance}
    _maps(root, "images/{}.jpg", maps)
    _text(root / "labels.csv", _TABLE)


def _masks(root: Path) -> None:
    for name in MARGINS:
        _photo(root / "images" / f"{name}.png")
        for number, (label, box) in enumerate(BOXES):
            save(root / "masks" / name / f"{label}_{number}.png", _full(box, name).astype(np.uint8) * 255)


def _panoptic(root: Path) -> None:
    images, annotations = [], []
    for number, name in enumerate(MARGINS, start=1):
        semantic, instance = drawing(name)
        ids = semantic.astype(np.int32) * 300 + instance
        _photo(root / "images" / f"{name}.png")
        save(root / "pngs" / f"{name}.png", id2rgb(ids))
        rows = [_segment(ids, int(i)) for i in np.unique(ids) if i]
        images.append({"id": number, "file_name": f"{name}.png", "height": H, "width": W + MARGINS[name]})
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": rows})
    categories = [{"id": i, "name": label, "isthing": int(i > 1)} for i, label in enumerate(CLASSES, start=1)]
    _text(root / "panoptic.json", {"images": images, "annotations": annotations, "categories": categories})


def _segment(ids: npt.NDArray[np.int32], number: int) -> dict[str, Any]:
    ys, xs = np.nonzero(ids == number)
    bbox = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    return {"id": number, "category_id": number // 300, "iscrowd": 0, "area": len(xs), "bbox": bbox}


_PATHS = "{root}/images {root}/maps {root}/labels.csv"
SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "coco polygons": (lambda root: _coco(root, "polygons"), f"coco {{root}}/instances.json {LAYERS}"),
    "coco masks": (lambda root: _coco(root, "masks"), f"coco {{root}}/instances.json {LAYERS}"),
    "coco and stuff maps": (
        _coco_with_stuff,
        f"coco {{root}}/instances.json --images {{root}}/images --stuff-maps {{root}}/stuff {LAYERS}",
    ),
    "cvat": (_cvat, f"cvat {{root}} {THINGS}"),
    "label-studio": (_label_studio, f"label-studio {{root}}/export.json {LAYERS}"),
    "labelme": (_labelme, f"labelme {{root}} {LAYERS}"),
    "yolo": (_yolo, f"yolo {{root}} {LAYERS}"),
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


def photographs(root: Path) -> Iterator[Path]:
    """Those of a source, which no annotation is read from."""
    of_maps = ("maps", "masks", "pngs", "stuff", "semantic", "instances", "instance", "gtFine", "annotations")
    skipped = (*of_maps, "annotations_instance", "SegmentationClass", "SegmentationObject")
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts[:-1]
        if path.suffix in (".png", ".jpg") and not set(inside) & set(skipped) and not path.stem.endswith("_seg"):
            yield path
