"""The slow, obvious twins of Panoptic Quality, and images to compare them on."""

import contextlib
import copy
import io
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CATEGORIES = [
    {"id": 7, "name": "car", "isthing": 1},
    {"id": 3, "name": "person", "isthing": 1},
    {"id": 200, "name": "road", "isthing": 0},
    {"id": 21, "name": "sky", "isthing": 0},
]


class Image(NamedTuple):
    """Maps int (H, W) and ``segments_info`` lists with dataset ids."""

    gt_map: np.ndarray
    gt_segments: list[dict[str, Any]]
    pred_map: np.ndarray
    pred_segments: list[dict[str, Any]]


def segment(id_: int, category_id: int, area: float | None = None, iscrowd: int = 0) -> dict[str, Any]:
    """One entry of the ground truth's ``segments_info``; without an area it gets its pixels in :func:`draw`."""
    return {"id": id_, "category_id": category_id, "iscrowd": iscrowd, "area": area}


def draw(gt: str, gt_segments: list[dict[str, Any]], pred: str, pred_categories: dict[int, int]) -> Image:
    """An image of rows of digits, which are ids; blanks separate rows."""
    gt_map, pred_map = (np.array([[int(c) for c in row] for row in rows.split()]) for rows in (gt, pred))
    counted = [{**s, "area": int((gt_map == s["id"]).sum()) if s["area"] is None else s["area"]} for s in gt_segments]
    return Image(gt_map, counted, pred_map, [{"id": i, "category_id": c} for i, c in pred_categories.items()])


def slow_counts(image: Image) -> dict[int, tuple[Fraction, int, int, int]]:
    """Category id → (sum of IoUs, TP, FP, FN): the rules in words, pixel by pixel, without rounding."""
    pairs = Counter(zip(image.gt_map.ravel().tolist(), image.pred_map.ravel().tolist(), strict=True))
    pixels = Counter(image.pred_map.ravel().tolist())
    counts = {c["id"]: [Fraction(0), 0, 0, 0] for c in CATEGORIES}
    last_crowd, matched_gt, matched_pred = {}, set(), set()
    for g in image.gt_segments:
        if g["iscrowd"]:
            last_crowd[g["category_id"]] = g["id"]
            continue
        for p in image.pred_segments:
            shared = pairs[g["id"], p["id"]]
            if shared and g["category_id"] == p["category_id"]:
                iou = Fraction(shared, pixels[p["id"]] + g["area"] - shared - pairs[0, p["id"]])
                if iou > Fraction(1, 2):
                    counts[g["category_id"]][0] += iou
                    counts[g["category_id"]][1] += 1
                    matched_gt.add(g["id"])
                    matched_pred.add(p["id"])
    for g in image.gt_segments:
        counts[g["category_id"]][3] += not g["iscrowd"] and g["id"] not in matched_gt
    for p in image.pred_segments:
        forgiven = pairs[0, p["id"]] + pairs[last_crowd.get(p["category_id"]), p["id"]]
        mostly = Fraction(forgiven, pixels[p["id"]]) > Fraction(1, 2)
        counts[p["category_id"]][2] += p["id"] not in matched_pred and not mostly
    return {id_: tuple(values) for id_, values in counts.items()}


def random_image(rng: np.random.Generator, height: int = 12, width: int = 16) -> Image:
    """Rectangles over rectangles; crowd, void, unlisted ground truth, huge ids and lists in any order occur."""
    gt_map = _rectangles(rng, np.zeros((height, width), np.int64), _ids(rng, rng.integers(0, 9)))
    gt_segments = [
        segment(int(i), _category(rng), int((gt_map == i).sum()), int(rng.random() < 0.2))
        for i in np.unique(gt_map)
        if i and rng.random() < 0.9
    ]
    gt_ids = np.unique(gt_map)
    renamed = dict(zip(gt_ids.tolist(), [0, *_ids(rng, len(gt_ids) - 1 + int(gt_ids[0] > 0))], strict=False))
    pred_map = np.vectorize(renamed.get, otypes=[np.int64])(gt_map)
    pred_map = _rectangles(rng, pred_map, rng.permutation(list(renamed.values()))[:3])
    truth = {renamed[s["id"]]: s["category_id"] for s in gt_segments}
    pred_segments = [
        {"id": int(i), "category_id": truth[int(i)] if int(i) in truth and rng.random() < 0.8 else _category(rng)}
        for i in np.unique(pred_map)
        if i
    ]
    rng.shuffle(gt_segments)
    rng.shuffle(pred_segments)
    return Image(gt_map, gt_segments, pred_map, pred_segments)


def _ids(rng: np.random.Generator, number: int) -> list[int]:
    return (rng.choice(rng.choice([30, 256**3 - 2]), number, replace=False) + 1).tolist()


def _category(rng: np.random.Generator) -> int:
    return CATEGORIES[rng.integers(len(CATEGORIES))]["id"]


def _rectangles(rng: np.random.Generator, panoptic_map: np.ndarray, ids: Any) -> np.ndarray:
    result = panoptic_map.copy()
    for id_ in ids:
        top, left = (int(rng.integers(0, size)) for size in result.shape)
        result[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = id_
    return result


def write_coco(folder: Path, images: list[Image], image_ids: list[Any] | None = None) -> tuple[Path, Path]:
    """Ground truth and predictions in COCO's panoptic format; the two JSON files, each beside its folder of PNGs."""
    image_ids = image_ids or list(range(len(images)))
    for name in ("gt", "pred"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        annotations = []
        for image_id, image in zip(image_ids, images, strict=True):
            panoptic_map, segments = getattr(image, f"{name}_map"), getattr(image, f"{name}_segments")
            write_panoptic_png(str(folder / name / f"{image_id}.png"), panoptic_map)
            annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
        content = {"categories": CATEGORIES, "annotations": annotations}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "gt.json", folder / "pred.json"


def panopticapi_stat(gt_json: Path, pred_json: Path) -> Any:
    """``PQStat`` of panopticapi's single-core loop over all images, in the ground truth's order."""
    from panopticapi.evaluation import pq_compute_single_core

    gt, pred = (json.loads(path.read_text()) for path in (gt_json, pred_json))
    predictions = {a["image_id"]: a for a in pred["annotations"]}
    matched = [(a, copy.deepcopy(predictions[a["image_id"]])) for a in gt["annotations"]]
    categories = {c["id"]: c for c in gt["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        return pq_compute_single_core(0, matched, gt_json.with_suffix(""), pred_json.with_suffix(""), categories)


def panopticapi_results(gt_json: Path, pred_json: Path) -> dict[str, Any]:
    """What panopticapi's ``pq_compute`` makes of :func:`panopticapi_stat`; every group needs a category that occurs."""
    stat = panopticapi_stat(gt_json, pred_json)
    categories = {c["id"]: c for c in json.loads(gt_json.read_text())["categories"]}
    results: dict[str, Any] = {}
    for name, isthing in (("All", None), ("Things", True), ("Stuff", False)):
        results[name], per_class = stat.pq_average(categories, isthing=isthing)
        results.setdefault("per_class", per_class)
    return results
