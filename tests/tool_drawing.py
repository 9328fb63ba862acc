"""One small drawing for tests of source formats, and what a conversion makes of it: a road, two cars, a person."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

H, W = 12, 16
# Visible parts: road, two cars, a person on the second car; the first row is unlabelled.
ROAD, CAR, OTHER, PERSON = (0, 1, 16, 12), (1, 2, 5, 8), (8, 4, 14, 9), (9, 3, 11, 10)
BOXES = [("road", ROAD), ("car", CAR), ("car", OTHER), ("person", PERSON)]
CLASSES = ["road", "car", "person"]


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Class from 1, 0 for void, and number of the instance from 1, 0 for stuff."""
    semantic, instance = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint8)
    for number, (name, (x0, y0, x1, y1)) in enumerate(BOXES):
        semantic[y0:y1, x0:x1] = CLASSES.index(name) + 1
        instance[y0:y1, x0:x1] = number
    return semantic, instance


def areas() -> list[tuple[str, int]]:
    semantic, instance = drawn()
    keys, counts = np.unique(semantic.astype(int) * 10 + instance, return_counts=True)
    return sorted((CLASSES[k // 10 - 1], int(n)) for k, n in zip(keys, counts, strict=True) if k)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def image(path: Path) -> Path:
    return save(path, np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8))


def save_cityscapes(root: Path, part: str, ending: str) -> None:
    """An image and its ids as Cityscapes lays them out."""
    semantic, instance = drawn()
    image(root / "leftImg8bit" / part / f"a_leftImg8bit{ending}")
    ids = np.where(instance > 0, semantic.astype(np.uint16) * 1000 + instance, semantic).astype(np.uint16)
    save(root / "gtFine" / part / "a_gtFine_instanceIds.png", ids)


def converted(text: str, lines: list[str] | None = None) -> dict[str, list[list[tuple[str, int]]]]:
    """Names and areas of the segments of each image, by part."""
    kept = lines if lines is not None else []
    parts = convert_description(parse_description(f"{text} --processes 1"), kept.append)
    found = {}
    for part, path in parts.items():
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in content["categories"]}
        found[part] = []
        for row in content["annotations"]:
            ids = read_panoptic_png(str(Path(path).with_suffix("") / row["file_name"]))
            found[part].append(
                sorted((names[s["category_id"]], int((ids == s["id"]).sum())) for s in row["segments_info"])
            )
    return found


def corners(box: tuple[int, int, int, int]) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write_labelme(path: Path, **extra: object) -> None:
    shapes = [{"label": n, "points": corners(b), "shape_type": "polygon", "flags": {}} for n, b in BOXES]
    shapes[1] |= {"shape_type": "oriented_rectangle"}
    content = {"version": "6.3.1", "shapes": shapes, "imageHeight": H, "imageWidth": W, "imageData": None, **extra}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


ON_TOP = "--things car,person --layers 'road < car < person'"
