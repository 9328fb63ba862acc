"""The rules of Panoptic Quality on maps drawn by hand, then on random ones against panopticapi."""

import functools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from oracles_pq import (
    CATEGORIES,
    Image,
    draw,
    panopticapi_results,
    panopticapi_stat,
    random_image,
    segment,
    slow_counts,
    write_coco,
)

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation import PQCounts, count_panoptic_quality, overlaps
from panoptic_fpn_ext.evaluation import panoptic_quality as core
from panoptic_fpn_ext.evaluation.segments import as_segment_map, parse_segments, unique_ids

CAR, PERSON, ROAD = 7, 3, 200
TABLE = PanopticCategories(CATEGORIES)

# name: image, then of category CAR (sum of IoUs, TP, FP, FN)
RULES = {
    "the same": (draw("0110", [segment(1, CAR)], "0990", {9: CAR}), (Fraction(1), 1, 0, 0)),
    "iou 2/3": (
        draw("1112", [segment(1, CAR), segment(2, ROAD)], "3344", {3: CAR, 4: ROAD}),
        (Fraction(2, 3), 1, 0, 0),
    ),
    "iou 1/2 is no match": (
        draw("1122", [segment(1, CAR), segment(2, ROAD)], "3444", {3: CAR, 4: ROAD}),
        (Fraction(0), 0, 1, 1),
    ),
    "another category": (draw("1111", [segment(1, CAR)], "3333", {3: PERSON}), (Fraction(0), 0, 0, 1)),
    "pixels on void leave the union": (draw("1100", [segment(1, CAR)], "3333", {3: CAR}), (Fraction(1), 1, 0, 0)),
    "void in the prediction does not": (draw("1111", [segment(1, CAR)], "3330", {3: CAR}), (Fraction(3, 4), 1, 0, 0)),
    "nothing there": (draw("0000", [], "0000", {}), (Fraction(0), 0, 0, 0)),
    "nothing found": (draw("1111", [segment(1, CAR)], "0000", {}), (Fraction(0), 0, 0, 1)),
    "more than half void is forgiven": (
        draw("00022", [segment(2, ROAD)], "33333", {3: CAR}),
        (Fraction(0), 0, 0, 0),
    ),
    "half void is not": (draw("0022", [segment(2, ROAD)], "3333", {3: CAR}), (Fraction(0), 0, 1, 0)),
    "crowd of the category forgives": (
        draw("11122", [segment(1, CAR, iscrowd=1), segment(2, ROAD)], "33333", {3: CAR}),
        (Fraction(0), 0, 0, 0),
    ),
    "crowd of another category does not": (
        draw("11122", [segment(1, PERSON, iscrowd=1), segment(2, ROAD)], "33333", {3: CAR}),
        (Fraction(0), 0, 1, 0),
    ),
    "void and crowd add up": (
        draw("01222", [segment(1, CAR, iscrowd=1), segment(2, ROAD)], "33344", {3: CAR, 4: ROAD}),
        (Fraction(0), 0, 0, 0),
    ),
    "crowd is neither matched nor missed": (
        draw("1111", [segment(1, CAR, iscrowd=1)], "3333", {3: CAR}),
        (Fraction(0), 0, 0, 0),
    ),
    "of several crowds the last counts": (
        draw("1112", [segment(1, CAR, iscrowd=1), segment(2, CAR, iscrowd=1)], "3333", {3: CAR}),
        (Fraction(0), 0, 1, 0),
    ),
    "the last in the list, not by id": (
        draw("1112", [segment(2, CAR, iscrowd=1), segment(1, CAR, iscrowd=1)], "3333", {3: CAR}),
        (Fraction(0), 0, 0, 0),
    ),
    "unlisted ground truth is no void": (draw("9991", [segment(1, CAR)], "3333", {3: CAR}), (Fraction(0), 0, 1, 1)),
    "the JSON's area makes the union": (
        draw("1111", [segment(1, CAR, area=6)], "3333", {3: CAR}),
        (Fraction(2, 3), 1, 0, 0),
    ),
    "listed without a pixel": (draw("0000", [segment(1, CAR, area=0)], "0000", {}), (Fraction(0), 0, 0, 1)),
    "one of two": (
        draw("1112 1112", [segment(1, CAR), segment(2, CAR)], "3344 3344", {3: CAR, 4: CAR}),
        (Fraction(2, 3), 1, 1, 1),
    ),
}


def _count(image: Image) -> PQCounts:
    return count_panoptic_quality(*image, TABLE)


def _of(counts: PQCounts, category_id: int) -> tuple[float, int, int, int]:
    index = TABLE.dataset_ids.index(category_id)
    return counts.iou_sum[index], counts.tp[index], counts.fp[index], counts.fn[index]


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str, tmp_path: Path):
    image, expected = RULES[name]
    assert slow_counts(image)[CAR] == expected
    iou_sum, tp, fp, fn = _of(_count(image), CAR)
    assert (iou_sum, tp, fp, fn) == (float(expected[0]), *expected[1:])
    reference = panopticapi_stat(*write_coco(tmp_path, [image]))[CAR]
    assert (iou_sum, tp, fp, fn) == (reference.iou, reference.tp, reference.fp, reference.fn)


def test_averages_as_fractions():
    counts = _count(RULES["one of two"][0]) + _count(RULES["iou 2/3"][0])
    summary = counts.summarize()
    assert summary["per_class"][CAR] == {"pq": (4 / 3) / 3, "sq": (4 / 3) / 2, "rq": 2 / 3}
    # Road: one of two pixels found, so IoU 1/2, no match.
    assert summary["per_class"][ROAD] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    assert summary["All"] == {"pq": (4 / 3) / 3 / 2, "sq": (4 / 3) / 2 / 2, "rq": 2 / 3 / 2, "n": 2}
    assert (summary["Things"]["n"], summary["Stuff"]["n"]) == (1, 1)


def test_a_group_without_category_is_nan():
    summary = _count(RULES["the same"][0]).summarize()
    assert summary["Things"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 1}
    assert summary["Stuff"]["n"] == 0
    assert all(math.isnan(summary["Stuff"][key]) for key in ("pq", "sq", "rq"))
    assert summary["per_class"][ROAD] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    assert PQCounts.zero(TABLE).summarize()["All"]["n"] == 0


@pytest.fixture(scope="module")
def images() -> list[Image]:
    rng = np.random.default_rng(3)
    return [random_image(rng) for _ in range(300)]


def test_random_images_as_panopticapi_to_the_last_bit(images: list[Image], tmp_path: Path):
    files = write_coco(tmp_path, images)
    counts = sum((_count(image) for image in images), PQCounts.zero(TABLE))
    reference = panopticapi_stat(*files)
    for id_ in TABLE.dataset_ids:
        stat = reference[id_]
        assert _of(counts, id_) == (stat.iou, stat.tp, stat.fp, stat.fn)
    assert min(counts.tp.sum(), counts.fp.sum(), counts.fn.sum()) > 250
    assert counts.summarize() == panopticapi_results(*files)


def test_random_images_as_the_slow_twin(images: list[Image]):
    for image in images:
        slow, fast = slow_counts(image), _count(image)
        for id_ in TABLE.dataset_ids:
            assert _of(fast, id_) == (pytest.approx(float(slow[id_][0])), *slow[id_][1:])


def test_any_grouping_of_a_sum_gives_the_same_bits(images: list[Image]):
    each = [_count(image) for image in images]
    left = functools.reduce(PQCounts.__add__, each)
    right = functools.reduce(lambda total, counts: counts + total, reversed(each))
    halves = functools.reduce(PQCounts.__add__, each[:117]) + functools.reduce(PQCounts.__add__, each[117:])
    assert left.iou_sum.tolist() == right.iou_sum.tolist() == halves.iou_sum.tolist()
    assert left.tp.tolist() == right.tp.tolist() == halves.tp.tolist()
    assert len(left.matches) < 20  # chunks, not one an image


def test_separate_runs_count_as_common_ones(images: list[Image], monkeypatch: pytest.MonkeyPatch):
    index = {id_: i for i, id_ in enumerate(TABLE.dataset_ids)}
    for max_cells in (1 << 20, 0):  # the histogram of few labels, and that of very many
        monkeypatch.setattr(overlaps, "_MAX_CELLS", max_cells)
        for image in images[:50]:
            gt = as_segment_map(image.gt_map, parse_segments(image.gt_segments, index)[0])
            pred = as_segment_map(image.pred_map, parse_segments(image.pred_segments, index)[0])
            counts = PQCounts.from_image(TABLE, core.count_image(gt, pred))
            assert [_of(counts, i) for i in index] == [_of(_count(image), i) for i in index]


def test_inputs_stay_as_they_are_and_may_be_strided():
    image = RULES["one of two"][0]
    wide = Image(np.repeat(image.gt_map, 2, 1)[:, ::2], image.gt_segments, image.pred_map.T.copy().T, image[3])
    before = [np.array(wide.gt_map), [dict(s) for s in wide.gt_segments], np.array(wide.pred_map), list(wide[3])]
    assert _of(_count(wide), CAR) == _of(_count(image), CAR)
    assert np.array_equal(wide.gt_map, before[0]) and wide.gt_segments == before[1]
    assert np.array_equal(wide.pred_map, before[2]) and wide.pred_segments == before[3]


def test_a_predictions_area_and_iscrowd_mean_nothing():
    image = RULES["the same"][0]
    odd = image._replace(pred_segments=[{"id": 9, "category_id": CAR, "area": 1, "iscrowd": 1}])
    assert _of(_count(odd), CAR) == (1.0, 1, 0, 0)


def test_area_and_iscrowd_may_be_absent():
    image = RULES["iou 2/3"][0]
    bare = image._replace(gt_segments=[{"id": s["id"], "category_id": s["category_id"]} for s in image.gt_segments])
    assert _of(_count(bare), CAR) == _of(_count(image), CAR)
    assert _count(bare).num_wrong_areas == 0


def test_wrong_areas_are_counted():
    wrong = _count(RULES["the JSON's area makes the union"][0])
    assert (wrong + wrong + _count(RULES["the same"][0])).num_wrong_areas == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred_map": np.zeros((2, 4), int)}, r"prediction has \(2, 4\) pixels.*ground truth \(1, 4\)"),
        ({"pred_map": np.array([[0, 9, 9, 5]])}, r"prediction: ids \[5\] have pixels and are not in segments_info"),
        ({"pred_map": np.array([[0, 0, 0, 0]])}, r"prediction: ids \[9\] are in segments_info and have no pixel"),
        ({"pred_map": np.array([[0.0, 9, 9, 0]])}, r"integer array \(H, W\), got float64 \(1, 4\)"),
        ({"pred_map": np.array([0, 9, 9, 0])}, "ground truth"),
        ({"pred_segments": [{"id": 9, "category_id": 5}]}, r"unknown category: 9 \(category_id 5\)"),
        ({"pred_segments": [{"id": 9, "category_id": CAR}] * 2}, r"prediction: segment ids \[9\] occur more than once"),
        (
            {"pred_segments": [{"id": -1, "category_id": CAR}]},
            r"prediction: segment -1: id must be .* from 1 to",
        ),
        ({"gt_segments": [segment(1, 5, 2)]}, "ground truth: 1 segments have an unknown category"),
        ({"gt_segments": [segment(1, CAR, 2)] * 2}, r"ground truth: segment ids \[1\] occur more than once"),
    ],
)
def test_unsound_images_are_errors(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        _count(RULES["the same"][0]._replace(**change))


def test_counts_of_other_categories_do_not_add_up():
    other = PQCounts.zero(PanopticCategories(CATEGORIES[:2]))
    with pytest.raises(ValueError, match="different categories"):
        PQCounts.zero(TABLE) + other
    with pytest.raises(TypeError):
        PQCounts.zero(TABLE) + 1


def test_unique_ids():
    ids = np.random.default_rng(0).integers(-1, 5, (7, 9))
    assert unique_ids(ids) == np.unique(ids).tolist()
