"""One drawing for tests of source formats, and whether a conversion gives it: wall, road, two cars, a person."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from panoptic_fpn_ext.data.convert import convert_description, parse_description
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

H, W = 12, 16
# Boxes x0 y0 x1 y1: the cars lie on wall and road, the person on the first car.
ROAD, WALL = (0, 8, 16, 12), (0, 0, 16, 8)
CARS, PERSON = [(1, 6, 6, 10), (8, 5, 14, 9)], (4, 4, 7, 9)
LAYERS = "--things car,person --layers 'wall, road < car < person'"
SHAPES = [("person", PERSON), ("car", CARS[0]), ("car", CARS[1]), ("road", ROAD), ("wall", WALL)]


def drawn() -> dict[str, list[np.ndarray]]:
    """Visible masks by category; every pixel is labelled."""
    ids = np.zeros((H, W), int)
    for value, (x0, y0, x1, y1) in enumerate([WALL, ROAD, *CARS, PERSON], start=1):
        ids[y0:y1, x0:x1] = value
    return {"wall": [ids == 1], "road": [ids == 2], "car": [ids == 3, ids == 4], "person": [ids == 5]}


def image(path: Path, height: int = H, width: int = W) -> None:
    """A photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def gray(path: Path, values: np.ndarray) -> None:
    """A map of any pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def corners(box: tuple[int, int, int, int]) -> list[float]:
    """A box as a polygon."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def converted(text: str, lines: list[str] | None = None) -> tuple[dict, Path]:
    """The JSON that a description gives, and its folder; lines that are said go to ``lines``."""
    parts = convert_description(parse_description(text), (lines if lines is not None else []).append)
    path = Path(parts["all"])
    return json.loads(path.read_text(encoding="utf-8")), path.parent


def masks(content: dict, folder: Path, index: int = 0) -> dict[str, list[np.ndarray]]:
    """Masks of an image's segments by category, whose areas and boxes are right."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    annotation = content["annotations"][index]
    ids = read_panoptic_png(str(folder / "panoptic" / annotation["file_name"]))
    found: dict[str, list[np.ndarray]] = {}
    for segment in annotation["segments_info"]:
        mask = ids == segment["id"]
        assert mask.sum() == segment["area"]
        ys, xs = np.nonzero(mask)
        assert segment["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        found.setdefault(names[segment["category_id"]], []).append(mask)
    return found


def assert_drawn(content: dict, folder: Path, expected: dict[str, list[np.ndarray]] | None = None) -> None:
    """Whether the first image has the drawing's masks, or those expected."""
    found, expected = masks(content, folder), expected or drawn()
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        rest = list(found[name])
        for mask in wanted:
            match = [i for i, other in enumerate(rest) if np.array_equal(mask, other)]
            assert match, f"{name}:\n{mask.astype(int)}\nis none of\n{[m.astype(int) for m in rest]}"
            rest.pop(match[0])
        assert not rest
    assert (folder / "images" / content["images"][0]["file_name"]).exists()


def write_coco(root: Path, segmentation=lambda box: [corners(box)]) -> Path:
    """The drawing as COCO's annotations of instances, each shape whole."""
    names = ["root", "road", "wall", "car", "person"]
    image(root / "a.jpg")
    rows = [
        {"id": i, "image_id": 7, "category_id": names.index(name), "segmentation": segmentation(box), "iscrowd": 0}
        for i, (name, box) in enumerate(SHAPES)
    ]
    categories = [{"id": i, "name": n, "supercategory": "root" if i else "none"} for i, n in enumerate(names)]
    images = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]
    path = root / "_annotations.coco.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def full_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    """A box with nothing on it."""
    mask = np.zeros((H, W), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def semantic_and_instance() -> tuple[np.ndarray, np.ndarray]:
    """Class from 1 and number of the instance from 1: 0 is void, and stuff."""
    semantic, instance = np.zeros((H, W), np.uint8), np.zeros((H, W), np.uint8)
    for value, (name, found) in enumerate(drawn().items(), start=1):
        for number, mask in enumerate(found, start=1):
            semantic[mask] = value
            instance[mask] = number if name in ("car", "person") else 0
    return semantic, instance
