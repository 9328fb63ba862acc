"""Small datasets with predictions in which errors are planted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CATEGORIES = [
    {"id": 1, "name": "car", "isthing": 1, "color": [0, 114, 189]},
    {"id": 2, "name": "door", "isthing": 1, "color": [217, 83, 25]},
    {"id": 7, "name": "sky", "isthing": 0, "color": [162, 20, 47]},
    {"id": 9, "name": "road", "isthing": 0, "color": [77, 190, 238]},
]
HEIGHT, WIDTH = 48, 64


class MadeResults:
    """``gt.json``, ``gt/``, ``images/`` and, of each model, ``NAME/predictions.json`` with its PNGs."""

    def __init__(self, root: Path, num: int = 6, models: tuple[str, ...] = ("a",)) -> None:
        self.root, self.gt, self.images = root, root / "gt.json", root / "images"
        self.predictions = [root / name / "predictions.json" for name in models]
        for folder in (root / "gt", self.images, *(path.with_suffix("") for path in self.predictions)):
            folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        rows, truth, found = [], [], [[] for _ in models]
        for number in range(1, num + 1):
            ids, segments = _scene(rng)
            rows.append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
            pixels = np.asarray(rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3)), np.uint8)
            Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(self.images / f"{number}.jpg")
            write_panoptic_png(str(root / "gt" / f"{number}.png"), ids)
            truth.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
            for path, annotations in zip(self.predictions, found, strict=True):
                predicted, infos = _predict(rng, ids, segments)
                write_panoptic_png(str(path.with_suffix("") / f"{number}.png"), predicted)
                annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        self._write(self.gt, rows, truth)
        for path, annotations in zip(self.predictions, found, strict=True):
            self._write(path, rows, annotations)

    def _write(self, path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        path.write_text(json.dumps(content), encoding="utf-8")

    def command(self, *extra: str) -> list[str]:
        """Arguments of ``python -m panoptic_fpn_ext.report``; the page is ``report.html`` in the root."""
        paths = [str(path) for path in (self.gt, *self.predictions)]
        return [*paths, "--images", str(self.images), "--output", str(self.root / "report.html"), *extra]


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Sky over road, a strip of void, some things."""
    ids = np.full((HEIGHT, WIDTH), 1, np.int32)
    ids[HEIGHT // 2 :], ids[:, -4:] = 2, 0
    categories = {1: 7, 2: 9}
    for id_ in range(3, 3 + int(rng.integers(2, 6))):
        y, x = int(rng.integers(0, HEIGHT - 16)), int(rng.integers(0, WIDTH - 20))
        ids[y : y + int(rng.integers(8, 16)), x : x + int(rng.integers(8, 16))] = id_
        categories[id_] = int(rng.choice([1, 2]))
    return ids, _infos(ids, categories)


def _infos(ids: np.ndarray, categories: dict[int, int]) -> list[dict[str, Any]]:
    areas = dict(zip(*(found.tolist() for found in np.unique(ids, return_counts=True)), strict=True))
    return [{"id": i, "category_id": c, "area": areas[i], "iscrowd": 0} for i, c in categories.items() if i in areas]


def _predict(
    rng: np.random.Generator, ids: np.ndarray, segments: list[dict[str, Any]]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segments shifted, left out, of another class; one that is nowhere."""
    predicted, categories = np.zeros_like(ids), {}
    for segment in segments:
        fate, mask = rng.random(), np.roll(ids == segment["id"], int(rng.integers(0, 3)), axis=1)
        if fate < 0.15:
            continue
        other = {1: 2, 2: 1, 7: 9, 9: 7}[segment["category_id"]]
        predicted[mask] = segment["id"] + 10
        categories[segment["id"] + 10] = other if fate < 0.3 else segment["category_id"]
    predicted[:6, :9] = 99
    categories[99] = 2
    infos = _infos(predicted, categories)
    return predicted, [{**info, "score": round(float(rng.uniform(0.3, 1)), 3)} for info in infos]
