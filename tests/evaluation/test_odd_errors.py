"""Causes and costs where there is little to go by: nothing, crowd only, ties, odd sizes, more than 255 of something."""

import json
from pathlib import Path

import numpy as np
import pytest
from explained_images import CAR, PERSON, ROAD, assert_costs_sum_up, causes_of, rows_of, with_crowd
from oracles_errors import slow_causes
from oracles_pq import Image, draw, random_image, segment, slow_counts

from panoptic_fpn_ext.evaluation import pq_compute
from panoptic_fpn_ext.evaluation.errors import explain_files
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

ODD: dict[str, Image] = {
    "no ground truth": draw("0000 0000", [], "1122 3333", {1: CAR, 2: PERSON, 3: ROAD}),
    "nothing at all": draw("0000", [], "0000", {}),
    "no prediction": draw("1122", [segment(1, CAR), segment(2, ROAD)], "0000", {}),
    "crowd only": draw("1111", [segment(1, CAR, iscrowd=1)], "2233", {2: CAR, 3: PERSON}),
    "two crowds of a class": draw(
        "11112222", [segment(1, CAR, iscrowd=1), segment(2, CAR, iscrowd=1)], "33334444", {3: CAR, 4: CAR}
    ),
    "a crowd of another class": draw("1111", [segment(1, PERSON, iscrowd=1)], "2222", {2: CAR}),
    "two halves": draw("1122", [segment(1, CAR), segment(2, CAR)], "3333", {3: CAR}),
    "equal IoUs": draw("111222", [segment(1, CAR), segment(2, CAR)], "334455", {3: CAR, 4: CAR, 5: CAR}),
    "half of it on void": draw("1100", [segment(1, ROAD)], "2222", {2: CAR}),
    "an id that nobody lists": draw("1199", [segment(1, CAR)], "2233", {2: CAR, 3: PERSON}),
    "a segment without a pixel": draw("1111", [segment(1, CAR), segment(2, PERSON, area=0)], "2222", {2: CAR}),
    "a chessboard": draw("1212 2121", [segment(1, CAR), segment(2, PERSON)], "3434 4343", {3: PERSON, 4: CAR}),
    "pieces partly on crowd": draw(
        "1111115555", [segment(1, CAR), segment(5, CAR, iscrowd=1)], "2223334444", {2: CAR, 3: CAR, 4: CAR}
    ),
    "three in one": draw("1111122333", [segment(1, CAR), segment(2, CAR), segment(3, CAR)], "4444444444", {4: CAR}),
    "two classes in one": draw("11112222", [segment(1, CAR), segment(2, PERSON)], "33333333", {3: CAR}),
    "one pixel": draw("1", [segment(1, CAR)], "2", {2: CAR}),
}


def _agrees(image: Image) -> None:
    rows = rows_of(image)
    assert causes_of(rows) == with_crowd(image, slow_causes(image))
    assert rows.tobytes() == rows_of(image, common=False).tobytes()
    assert_costs_sum_up(rows, slow_counts(image))


@pytest.mark.parametrize("name", ODD)
def test_odd_images_agree_with_the_slow_twin(name: str):
    _agrees(ODD[name])


def test_images_of_any_size_agree_with_the_slow_twin():
    rng = np.random.default_rng(9)
    for _ in range(150):
        _agrees(random_image(rng, *(int(n) for n in rng.integers(1, 14, 2))))


def test_many_classes_and_many_segments_of_several_images(tmp_path: Path):
    """Images are explained together, and labels have two bytes."""
    categories = [{"id": 1000 + 3 * k, "name": f"c{k}", "isthing": k % 2} for k in range(700)]
    annotations: dict[str, list] = {"gt": [], "pred": []}
    for side in annotations:
        (tmp_path / side).mkdir()
    for number in range(70):
        ids = np.arange(24 * 30).reshape(24, 30) // (2 if number % 9 == 0 else 40) + 1
        for side, drawn in (("gt", ids), ("pred", np.roll(ids, number, 1))):
            write_panoptic_png(str(tmp_path / side / f"{number}.png"), drawn.astype(np.int32))
            rows = [
                {
                    "id": id_,
                    "category_id": 1000 + 3 * (id_ * (1 + (side == "pred" and id_ % 11 == 0)) % 700),
                    "area": px,
                }
                for id_, px in zip(*(found.tolist() for found in np.unique(drawn, return_counts=True)), strict=True)
            ]
            annotations[side].append({"image_id": number, "file_name": f"{number}.png", "segments_info": rows})
    paths = [tmp_path / f"{side}.json" for side in annotations]
    for path, rows in zip(paths, annotations.values(), strict=True):
        path.write_text(json.dumps({"annotations": rows, "categories": categories}))
    errors, pq = explain_files(*paths), 100 * pq_compute(*paths)["All"]["pq"]
    assert errors.losses.costs().sum() == pytest.approx(100 - pq, abs=1e-9)
    assert [len(image.rows) for image in errors.images] == [
        len(a["segments_info"]) + len(b["segments_info"]) for a, b in zip(*annotations.values(), strict=True)
    ]
    assert errors.pixel_confusion.sum() == 70 * 24 * 30
