#!/usr/bin/env python
"""How many planted errors of a ground truth does the list of suspected label errors find?

Of a share of the segments, one in four gets another class, is deleted (void stays), is merged with another one of its
class, or has its border shifted; predictions stay as they are. An error is found if one of the first entries of the
list, twice as many as there are errors, is a segment of IoU > 0.3 with it, as it was or as it is.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import copy
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from panoptic_fpn_ext.coco_json import image_key, read_panoptic, read_predictions
from panoptic_fpn_ext.command import command_parser, real, run_command, whole
from panoptic_fpn_ext.evaluation.errors import explain_files
from panoptic_fpn_ext.evaluation.errors.label_errors import find_label_errors
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

KINDS = ("class", "deleted", "merged", "border")
LEAST_AREA = 100  # px of a segment that errors are planted in
FOUND = 0.3  # IoU

_Map = npt.NDArray[np.int32]


class Planted(NamedTuple):
    """An error: position of its image, kind, and masks of the segment before and after."""

    image: int
    kind: str
    masks: tuple[npt.NDArray[np.bool_], ...]


def plant(
    ids: _Map, segments: list[dict[str, Any]], index: int, kind: str, rng: np.random.Generator, others: Sequence[int]
) -> tuple[npt.NDArray[np.bool_], ...] | None:
    """Change a map and its list in place; the masks of the segment before and after, None where it cannot be done.

    Args:
        ids: segment ids (H, W).
        segments: with ``id``, ``category_id``, ``area``.
        index: of the segment to spoil.
        kind: one of ``KINDS``.
        rng: chooses.
        others: categories of its kind, thing or stuff.
    """
    segment = segments[index]
    before = ids == segment["id"]
    if kind == "class":
        used = {s["category_id"] for s in segments}
        free = [c for c in others if c != segment["category_id"] and (segment["isthing"] or c not in used)]
        if not free:
            return None
        segment["category_id"] = int(rng.choice(free))
    elif kind == "deleted":
        ids[before] = 0
        segments.pop(index)
    elif kind == "merged":
        same = [s for s in segments if s is not segment and s["category_id"] == segment["category_id"]]
        same = [s for s in same if segment["isthing"] and s["area"] >= LEAST_AREA]
        if not same:
            return None
        other = min(same, key=lambda s: abs(s["area"] - segment["area"]))
        ids[ids == other["id"]] = segment["id"]
        segments.remove(other)
    else:
        _shift(ids, segment["id"], before, rng)
    return before, ids == segment["id"]


def _shift(ids: _Map, id_: int, before: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Move a segment by a quarter to two fifths of its side, over what is there; what it leaves is void."""
    axis = int(rng.integers(2))
    side = int(before.any(axis=1 - axis).sum())
    step = max(3, round(side * float(rng.uniform(0.25, 0.4)))) * int(rng.choice([-1, 1]))
    moved = np.zeros_like(before)
    source, target = (slice(0, -step), slice(step, None)) if step > 0 else (slice(-step, None), slice(0, step))
    index = [(slice(None), part) if axis else (part, slice(None)) for part in (target, source)]
    moved[index[0]] = before[index[1]]
    ids[before] = 0
    ids[moved] = id_


def spoil(
    gt_json: str, gt_folder: str, output: str, share: float, seed: int, least_area: int = LEAST_AREA
) -> list[Planted]:
    """Write a copy of a ground truth with errors in a share of its segments of so many px or more, ``gt.json`` and
    ``gt/`` in ``output``.
    """
    rng = np.random.default_rng(seed)
    content = copy.deepcopy(read_panoptic(gt_json, complete=False))
    isthing = {row["id"]: bool(row["isthing"]) for row in content["categories"]}
    kinds: list[str] = []
    planted = []
    os.makedirs(os.path.join(output, "gt"), exist_ok=True)
    for position, annotation in enumerate(content["annotations"]):
        ids = read_panoptic_png(os.path.join(gt_folder, annotation["file_name"]))
        segments = annotation["segments_info"]
        for segment in segments:
            segment |= {"area": int((ids == segment["id"]).sum()), "isthing": isthing[segment["category_id"]]}
        large = [s["id"] for s in segments if s["area"] >= least_area and not s.get("iscrowd")]
        for id_ in [i for i in large if rng.random() < share]:
            kinds = kinds or list(rng.permutation(KINDS))
            index = next((k for k, s in enumerate(segments) if s["id"] == id_), None)
            if index is None:
                continue
            others = [c for c, thing in isthing.items() if thing == segments[index]["isthing"]]
            for kind in [*kinds]:
                masks = plant(ids, segments, index, kind, rng, others)
                if masks is not None:
                    kinds.remove(kind)
                    planted.append(Planted(position, kind, masks))
                    break
        _recount(ids, segments)
        name = f"{position}.png"
        write_panoptic_png(os.path.join(output, "gt", name), ids)
        annotation["file_name"] = name
    Path(output, "gt.json").write_text(json.dumps(content), encoding="utf-8")
    return planted


def _recount(ids: _Map, segments: list[dict[str, Any]]) -> None:
    """Areas as they are now; what lost all of its pixels is gone."""
    areas = dict(zip(*(found.tolist() for found in np.unique(ids, return_counts=True)), strict=True))
    segments[:] = [{**s, "area": areas[s["id"]]} for s in segments if s["id"] in areas]


def count_found(
    planted: Sequence[Planted], gt_json: str, pred_json: str, pred_folder: str
) -> dict[str, tuple[int, int, int]]:
    """By kind, and of all: how many were planted, found in the first n and in the first 2n entries of the list."""
    errors = explain_files(gt_json, pred_json, pred_folder=pred_folder)
    suspects = find_label_errors(errors, 2 * len(planted))
    content = read_panoptic(gt_json, complete=False)
    predictions = read_predictions(pred_json, content["categories"], gt_json, lambda _, text: None)
    rank = [len(suspects)] * len(planted)
    for place, suspect in enumerate(suspects):
        annotation = content["annotations"][suspect.image]
        row = errors.images[suspect.image].rows[suspect.row]
        path = gt_json.removesuffix(".json") + "/" + annotation["file_name"]
        if row["predicted"]:
            path = os.path.join(pred_folder, predictions[image_key(annotation["image_id"])]["file_name"])
        mask = read_panoptic_png(path) == row["id"]
        for number, error in enumerate(planted):
            if error.image == suspect.image and any(_iou(mask, other) > FOUND for other in error.masks):
                rank[number] = min(rank[number], place)
    counted = {}
    for kind in (*KINDS, "all"):
        ranks = [r for r, error in zip(rank, planted, strict=True) if kind in (error.kind, "all")]
        counted[kind] = (len(ranks), *(sum(r < k * len(planted) for r in ranks) for k in (1, 2)))
    return counted  # type: ignore[return-value]


def _iou(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


def _run(args: argparse.Namespace, seed: int) -> dict[str, tuple[int, int, int]]:
    with tempfile.TemporaryDirectory() as folder:
        gt_folder = args.gt_folder or args.gt_json.removesuffix(".json")
        planted = spoil(args.gt_json, gt_folder, folder, args.share, seed, args.least_area)
        if not planted:
            raise ValueError(f"No error could be planted in {args.gt_json}: take a larger --share.")
        pred_folder = args.pred_json.removesuffix(".json")
        return count_found(planted, os.path.join(folder, "gt.json"), args.pred_json, pred_folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Plant, search, print."""
    parser = command_parser(__doc__, "python projects/label_errors/run.py GT.json output/inference/predictions.json")
    parser.add_argument("gt_json", help="COCO panoptic JSON of the ground truth, with its PNGs beside it")
    parser.add_argument("pred_json", help="predictions, with their PNGs beside them")
    parser.add_argument("--gt-folder", help="default: as gt_json")
    parser.add_argument("--share", type=real(0, 1), default=0.05, help="of the segments, default: %(default)s")
    parser.add_argument("--least-area", type=whole(0), default=LEAST_AREA, metavar="PX", help="default: %(default)s")
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0], help="one run each, counted together (0)")
    args: argparse.Namespace = parser.parse_args(arguments)
    found: Counter[tuple[str, int]] = Counter()
    for seed in args.seeds:
        for kind, numbers in _run(args, seed).items():
            found.update({(kind, column): number for column, number in enumerate(numbers)})
    rows = [
        [kind, *(found[kind, column] for column in range(3)), f"{found[kind, 2] / max(found[kind, 0], 1):.0%}"]
        for kind in (*KINDS, "all")
    ]
    print(tabulate(rows, ["error", "planted", "in the first n", "in the first 2n", ""], tablefmt="pipe"))


if __name__ == "__main__":
    run_command(main)
