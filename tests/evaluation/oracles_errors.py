"""The slow, obvious twin of the causes: the table of rules read aloud, pixel by pixel, in fractions."""

from collections import Counter
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from oracles_pq import CATEGORIES, Image

HALF, NEAR = Fraction(1, 2), Fraction(3, 10)
ISTHING = {row["id"]: bool(row["isthing"]) for row in CATEGORIES}


def slow_causes(image: Image) -> tuple[dict[int, str], dict[int, str]]:
    """Id → cause of the ground truth's segments, and of the prediction's."""
    gt = {s["id"]: s["category_id"] for s in image.gt_segments if not s["iscrowd"]}
    pred = {s["id"]: s["category_id"] for s in image.pred_segments}
    shared = Counter(zip(image.gt_map.ravel().tolist(), image.pred_map.ravel().tolist(), strict=True))
    gt_px, pred_px = Counter(image.gt_map.ravel().tolist()), Counter(image.pred_map.ravel().tolist())
    seen = {p: pred_px[p] - shared[0, p] for p in pred}
    pairs = [(g, p) for g, p in product(gt, pred) if shared[g, p]]
    iou = {(g, p): Fraction(shared[g, p], gt_px[g] + seen[p] - shared[g, p]) for g, p in pairs}
    same = {(g, p): gt[g] == pred[p] for g, p in pairs}
    matches = {(g, p) for g, p in pairs if same[g, p] and iou[g, p] > HALF}
    open_gt = set(gt) - {g for g, _ in matches}
    open_pred = {p for p in pred if p not in {p for _, p in matches} and not _forgiven(image, p, pred[p], shared)}

    def rule(name: str, g: int, p: int) -> bool:
        both = g in open_gt and p in open_pred
        if name == "wrong class":
            return both and not same[g, p] and iou[g, p] > HALF
        if name == "merged":
            return same[g, p] and sum(most_of_g(other, p) for other in gt) >= 2 and most_of_g(g, p)
        if name == "split":
            pieces = [other for other in pred if most_of_p(g, other)]
            covered = sum(shared[g, other] for other in pieces)
            return both and len(pieces) >= 2 and covered > HALF * gt_px[g] and p in pieces
        if name == "duplicate":
            near = same[g, p] and NEAR < iou[g, p] <= HALF
            return g not in open_gt and p in open_pred and (most_of_p(g, p) or near)
        return both and same[g, p] == (name == "boundary") and NEAR < iou[g, p] <= HALF

    def most_of_g(g: int, p: int) -> bool:
        return bool((g, p) in same and same[g, p] and shared[g, p] > HALF * gt_px[g])

    def most_of_p(g: int, p: int) -> bool:
        return bool((g, p) in same and same[g, p] and p in open_pred and shared[g, p] > HALF * seen[p])

    names = ("wrong class", "merged", "split", "duplicate", "boundary", "wrong class, near")
    causes: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for side, segments, open_, otherwise in ((0, gt, open_gt, "missed"), (1, pred, open_pred, "hallucinated")):
        for id_ in segments:
            mine = sorted(
                (pair for pair in pairs if pair[side] == id_), key=lambda pair: (iou[pair], pair), reverse=True
            )
            found = [(name, pair) for name in names for pair in mine if rule(name, *pair)]
            found = [f for f in found if side or f[0] != "duplicate"]
            if any(pair in matches for pair in mine):
                causes[side][id_] = "matched"
            elif id_ not in open_:
                causes[side][id_] = "ignored"
            else:
                causes[side][id_] = _name(*found[0], gt, pred) if found else otherwise
    return causes


def _name(rule: str, pair: tuple[int, int], gt: dict[int, int], pred: dict[int, int]) -> str:
    if not rule.startswith("wrong class"):
        return rule
    kinds = {ISTHING[gt[pair[0]]], ISTHING[pred[pair[1]]]}
    return "wrong_class_" + {True: "thing_stuff", False: "things" if True in kinds else "stuff"}[len(kinds) == 2]


def _forgiven(image: Image, p: int, category: int, shared: Any) -> bool:
    crowds = [s["id"] for s in image.gt_segments if s["iscrowd"] and s["category_id"] == category]
    free = shared[0, p] + (shared[crowds[-1], p] if crowds else 0)
    return Fraction(free, int((image.pred_map == p).sum())) > HALF


def slow_neighbors(ids: npt.NDArray[np.integer], side: int) -> list[tuple[int, int, int, int]]:
    """Row and column of the left or upper pixel, and both ids, of all neighbours that differ; those one above the other
    are looked at in the first column of each cell of ``side`` px.
    """
    height, width = ids.shape
    beside = [(y, x, y, x + 1) for y in range(height) for x in range(width - 1)]
    above = [(y, x, y + 1, x) for y in range(height - 1) for x in range(0, width, side)]
    return [(y, x, int(ids[y, x]), int(ids[v, u])) for y, x, v, u in beside + above if ids[y, x] != ids[v, u]]


def slow_near(ids: npt.NDArray[np.integer], side: int) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) with an edge in their cell of ``side`` px, or in one of the eight around it."""
    cells = {(y // side, x // side) for y, x, _, _ in slow_neighbors(ids, side)}
    return np.array(
        [
            [any((y // side + a, x // side + b) in cells for a, b in product((-1, 0, 1), repeat=2)) for x in range(w)]
            for h, w in [ids.shape]
            for y in range(h)
        ]
    )
