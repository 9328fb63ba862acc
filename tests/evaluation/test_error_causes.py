"""Why points of PQ are lost, image by image: causes on maps drawn by hand, the sum of the costs in fractions."""

import copy
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from explained_images import (
    CAR,
    INDEX,
    PERSON,
    ROAD,
    SKY,
    TABLE,
    assert_costs_sum_up,
    causes_of,
    pq_of,
    rows_of,
    with_crowd,
)
from oracles_errors import slow_causes, slow_near, slow_neighbors
from oracles_pq import Image, draw, random_image, segment, slow_counts

from panoptic_fpn_ext.evaluation.errors import CAUSES, COLUMNS, Losses, shapes
from panoptic_fpn_ext.evaluation.segments import as_segment_map, parse_segments

CASES: dict[str, tuple[Image, dict[int, str], dict[int, str]]] = {
    "missed, and hallucinated on another segment": (
        draw("1111 0000 3333", [segment(1, CAR), segment(3, ROAD)], "0000 0000 3334", {3: ROAD, 4: PERSON}),
        {1: "missed", 3: "matched"},
        {3: "matched", 4: "hallucinated"},
    ),
    "split": (
        draw("11111111", [segment(1, CAR)], "22233300", {2: CAR, 3: CAR}),
        {1: "split"},
        {2: "split", 3: "split"},
    ),
    "a second piece of what has its match is a duplicate": (
        draw("11111111", [segment(1, CAR)], "22222333", {2: CAR, 3: CAR}),
        {1: "matched"},
        {2: "matched", 3: "duplicate"},
    ),
    "merged, nobody matches": (
        draw("11112222", [segment(1, CAR), segment(2, CAR)], "33333333", {3: CAR}),
        {1: "merged", 2: "merged"},
        {3: "merged"},
    ),
    "merged into the match of another": (
        draw("11111122", [segment(1, CAR), segment(2, CAR)], "33333333", {3: CAR}),
        {1: "matched", 2: "merged"},
        {3: "matched"},
    ),
    "thing for thing": (
        draw("1111", [segment(1, CAR)], "2222", {2: PERSON}),
        {1: "wrong_class_things"},
        {2: "wrong_class_things"},
    ),
    "stuff for stuff": (
        draw("1111", [segment(1, ROAD)], "2222", {2: SKY}),
        {1: "wrong_class_stuff"},
        {2: "wrong_class_stuff"},
    ),
    "thing for stuff": (
        draw("1111", [segment(1, CAR)], "2220", {2: SKY}),
        {1: "wrong_class_thing_stuff"},
        {2: "wrong_class_thing_stuff"},
    ),
    "boundary: exactly one half is no match": (
        draw("1111", [segment(1, CAR)], "2200", {2: CAR}),
        {1: "boundary"},
        {2: "boundary"},
    ),
    "exactly 0.3 is too far": (
        draw("1111111111", [segment(1, CAR)], "2220000000", {2: CAR}),
        {1: "missed"},
        {2: "hallucinated"},
    ),
    "most of it on void is ignored": (
        draw("1100000", [segment(1, CAR)], "1102220", {1: CAR, 2: CAR}),
        {1: "matched"},
        {1: "matched", 2: "ignored"},
    ),
    "crowd costs nothing and forgives": (
        draw("11112222", [segment(1, CAR, iscrowd=1), segment(2, ROAD)], "33302222", {2: ROAD, 3: CAR}),
        {1: "ignored", 2: "matched"},
        {2: "matched", 3: "ignored"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cause(name: str):
    image, of_gt, of_pred = CASES[name]
    rows = rows_of(image)
    assert causes_of(rows) == (of_gt, of_pred) == with_crowd(image, slow_causes(image))
    assert_costs_sum_up(rows, slow_counts(image))


def test_causes_boxes_and_tables_on_random_images_are_those_of_the_slow_twin():
    rng = np.random.default_rng(1)
    for _ in range(120):
        image = random_image(rng)
        rows = rows_of(image)
        assert causes_of(rows) == with_crowd(image, slow_causes(image))
        assert rows.tobytes() == rows_of(image, common=False).tobytes()
        for row in rows:
            ys, xs = np.nonzero((image.pred_map if row["predicted"] else image.gt_map) == row["id"])
            assert row["bbox"].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_costs_sum_to_what_pq_lacks_in_fractions_on_random_images():
    rng = np.random.default_rng(0)
    tables, total = [], {id_: (Fraction(0), 0, 0, 0) for id_ in INDEX}
    for _ in range(400):
        image = random_image(rng, 8, 10)
        counts = slow_counts(image)
        tables.append(rows_of(image))
        assert_costs_sum_up(tables[-1], counts)
        total = {id_: tuple(a + b for a, b in zip(total[id_], counts[id_], strict=True)) for id_ in total}
    assert_costs_sum_up(np.concatenate(tables), total)
    parts = [Losses.of(TABLE, table, exact=True) for table in tables]
    assert (sum(parts[1:], parts[0]).table == Losses.of(TABLE, np.concatenate(tables), exact=True).table).all()


@pytest.mark.parametrize("band_width", [0.02, 0.2, 0.45])
def test_edges_are_those_of_the_slow_twin_on_cells_of_any_size(band_width: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "BAND_WIDTH", band_width)
    rng = np.random.default_rng(2)
    for size in [(12, 16), (1, 9), (9, 1), (1, 1), *((int(h), int(w)) for h, w in rng.integers(1, 20, (12, 2)))]:
        image = random_image(rng, *size)
        side = shapes.cell_side(size)
        parsed, _ = parse_segments(image.gt_segments, INDEX)
        edges = shapes.find_edges(as_segment_map(image.gt_map, parsed))
        near = shapes.near_edges(edges, size, np.arange(image.gt_map.size))
        gt_map = np.where(np.isin(image.gt_map, [0, *parsed.ids]), image.gt_map, -1)  # ids that nobody lists are one
        assert (near.reshape(size) == slow_near(gt_map, side)).all()
        things = {s["id"] for s in image.gt_segments if not s["iscrowd"] and TABLE.isthing(s["category_id"])}
        crowds = {s["id"] for s in image.gt_segments if s["iscrowd"] and TABLE.isthing(s["category_id"])}
        touching = [{a, b} for _, _, a, b in slow_neighbors(gt_map, side) if {a, b} <= things | crowds]
        rows = rows_of(image)
        assert set(rows["id"][rows["touches_thing"]].tolist()) == set().union(*touching)


def test_what_a_match_loses_near_edges_and_inside():
    gt, pred = np.ones((40, 40), int), np.ones((40, 40), int)
    gt[:, 20:] = pred[:, 21:] = 2  # a column on the wrong side of the edge
    pred[20, 5] = 0  # and a hole far from it
    image = Image(gt, [segment(1, ROAD, 800), segment(2, SKY, 800)], pred, [{"id": 1, "category_id": ROAD}])
    image.pred_segments.append({"id": 2, "category_id": SKY})
    table = Losses.of(TABLE, rows_of(image), exact=True).table
    road = table[INDEX[ROAD], -2:].tolist()
    assert road == [Fraction(40, 840), Fraction(1, 840)]
    assert table[INDEX[SKY], -2:].tolist() == [Fraction(40, 800), 0]


def _repair(image: Image, rows: npt.NDArray[np.void], cause: str) -> Image:
    """The prediction without the false positives of a cause, and with its missed segments as they should be."""
    of_gt, of_pred = causes_of(rows)
    pred, segments = image.pred_map.copy(), copy.deepcopy(image.pred_segments)
    gone = {id_ for id_, found in of_pred.items() if found == cause}
    pred[np.isin(pred, [*gone])] = 0
    segments = [s for s in segments if s["id"] not in gone]
    categories = {s["id"]: s["category_id"] for s in image.gt_segments}
    for id_ in (id_ for id_, found in of_gt.items() if found == cause):
        pred[image.gt_map == id_] = 50 + id_
        segments.append({"id": 50 + id_, "category_id": categories[id_]})
    return Image(image.gt_map, image.gt_segments, pred, segments)


OVERLAPPING = ("ignored", "another", "far")  # to draw one segment right takes pixels from another there


@pytest.mark.parametrize("name", [name for name in CASES if not any(word in name for word in OVERLAPPING)])
def test_mending_one_cause_in_the_map_gives_the_pq_that_was_foretold(name: str):
    image, rows = CASES[name][0], rows_of(CASES[name][0])
    losses = Losses.of(TABLE, rows, exact=True)
    for cause in sorted({CAUSES[code] for code in rows["cause"]} & set(COLUMNS)):
        mended = pq_of(slow_counts(_repair(image, rows, cause)), None)
        foretold = losses.repaired(COLUMNS.index(cause))
        assert foretold == (100 if mended is None else mended) or np.isnan(float(foretold))
