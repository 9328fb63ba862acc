"""Why points of PQ are lost: causes on maps drawn by hand, the sum of the costs in fractions, the result of files."""

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from oracles_errors import slow_causes, slow_near, slow_neighbors
from oracles_pq import CATEGORIES, Image, draw, random_image, segment, slow_counts, write_coco

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.errors import (
    CAUSES,
    COLUMNS,
    GROUPS,
    Losses,
    PanopticErrors,
    bootstrap,
    calibrate,
    compare_models,
    explain_files,
    explain_image,
    shapes,
    strata,
)
from panoptic_fpn_ext.evaluation.panoptic_quality import compare_image
from panoptic_fpn_ext.evaluation.segments import as_segment_map, as_segment_maps, parse_segments
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

CAR, PERSON, ROAD, SKY = 7, 3, 200, 21
TABLE = PanopticCategories(CATEGORIES, as_listed=True)
INDEX = {id_: index for index, id_ in enumerate(TABLE.dataset_ids)}
ISTHING = np.array([TABLE.isthing(id_) for id_ in INDEX])


def _rows(image: Image, common: bool = True) -> npt.NDArray[np.void]:
    gt, _ = parse_segments(image.gt_segments, INDEX)
    pred, _ = parse_segments(image.pred_segments, INDEX, predicted=True)
    if common:
        maps = as_segment_maps(image.gt_map, gt, image.pred_map, pred)
    else:
        maps = as_segment_map(image.gt_map, gt), as_segment_map(image.pred_map, pred)
    return explain_image(*maps, compare_image(*maps), ISTHING)


def _causes(rows: npt.NDArray[np.void]) -> tuple[dict[int, str], dict[int, str]]:
    named = [[(int(r["id"]), CAUSES[r["cause"]]) for r in rows if r["predicted"] == side] for side in (False, True)]
    return dict(named[0]), dict(named[1])


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
    rows = _rows(image)
    assert _causes(rows) == (of_gt, of_pred) == _with_crowd(image, slow_causes(image))
    _assert_costs_sum_up(rows, slow_counts(image))


def test_causes_boxes_and_tables_on_random_images_are_those_of_the_slow_twin():
    rng = np.random.default_rng(1)
    for _ in range(120):
        image = random_image(rng)
        rows = _rows(image)
        assert _causes(rows) == _with_crowd(image, slow_causes(image))
        assert rows.tobytes() == _rows(image, common=False).tobytes()
        for row in rows:
            ys, xs = np.nonzero((image.pred_map if row["predicted"] else image.gt_map) == row["id"])
            assert row["bbox"].tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def _with_crowd(image: Image, causes: tuple[dict[int, str], dict[int, str]]) -> tuple[dict[int, str], dict[int, str]]:
    return {**causes[0], **{s["id"]: "ignored" for s in image.gt_segments if s["iscrowd"]}}, causes[1]


def _pq(counts: dict[int, tuple[Fraction, int, int, int]], isthing: bool | None) -> Fraction | None:
    occurring = [
        iou_sum / (tp + Fraction(fp + fn, 2))
        for id_, (iou_sum, tp, fp, fn) in counts.items()
        if tp + fp + fn and isthing in (None, TABLE.isthing(id_))
    ]
    return 100 * sum(occurring, Fraction(0)) / len(occurring) if occurring else None


def _assert_costs_sum_up(rows: npt.NDArray[np.void], counts: dict[int, tuple[Fraction, int, int, int]]) -> None:
    losses = Losses.of(TABLE, rows, exact=True)
    for group, isthing in zip(GROUPS, (None, True, False), strict=True):
        pq = _pq(counts, isthing)
        assert losses.costs(group).sum() == (0 if pq is None else 100 - pq)


def test_costs_sum_to_what_pq_lacks_in_fractions_on_random_images():
    rng = np.random.default_rng(0)
    tables, total = [], {id_: (Fraction(0), 0, 0, 0) for id_ in INDEX}
    for _ in range(400):
        image = random_image(rng, 8, 10)
        counts = slow_counts(image)
        tables.append(_rows(image))
        _assert_costs_sum_up(tables[-1], counts)
        total = {id_: tuple(a + b for a, b in zip(total[id_], counts[id_], strict=True)) for id_ in total}
    _assert_costs_sum_up(np.concatenate(tables), total)
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
        rows = _rows(image)
        assert set(rows["id"][rows["touches_thing"]].tolist()) == set().union(*touching)


def test_what_a_match_loses_near_edges_and_inside():
    gt, pred = np.ones((40, 40), int), np.ones((40, 40), int)
    gt[:, 20:] = pred[:, 21:] = 2  # a column on the wrong side of the edge
    pred[20, 5] = 0  # and a hole far from it
    image = Image(gt, [segment(1, ROAD, 800), segment(2, SKY, 800)], pred, [{"id": 1, "category_id": ROAD}])
    image.pred_segments.append({"id": 2, "category_id": SKY})
    table = Losses.of(TABLE, _rows(image), exact=True).table
    road = table[INDEX[ROAD], -2:].tolist()
    assert road == [Fraction(40, 840), Fraction(1, 840)]
    assert table[INDEX[SKY], -2:].tolist() == [Fraction(40, 800), 0]


def _repair(image: Image, rows: npt.NDArray[np.void], cause: str) -> Image:
    """The prediction without the false positives of a cause, and with its missed segments as they should be."""
    of_gt, of_pred = _causes(rows)
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
    image, rows = CASES[name][0], _rows(CASES[name][0])
    losses = Losses.of(TABLE, rows, exact=True)
    for cause in sorted({CAUSES[code] for code in rows["cause"]} & set(COLUMNS)):
        mended = _pq(slow_counts(_repair(image, rows, cause)), None)
        foretold = losses.repaired(COLUMNS.index(cause))
        assert foretold == (100 if mended is None else mended) or np.isnan(float(foretold))


def _files(folder: Path, number: int = 30, seed: int = 0) -> tuple[Path, Path]:
    rng = np.random.default_rng(seed)
    gt_json, pred_json = write_coco(folder, [random_image(rng) for _ in range(number)])
    content = json.loads(pred_json.read_text())
    for annotation in content["annotations"]:
        for row in annotation["segments_info"]:
            row["score"] = 0.75
    pred_json.write_text(json.dumps(content))
    return gt_json, pred_json


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> PanopticErrors:
    return explain_files(*_files(tmp_path_factory.mktemp("errors")))


def test_result_of_files_adds_up_everywhere_and_is_json(errors: PanopticErrors):
    content = json.loads(json.dumps(errors.json(), allow_nan=False))
    lacks = 100 - 100 * errors.counts.summarize()["All"]["pq"]
    assert sum(content["All"]["costs"].values()) == pytest.approx(lacks, abs=1e-9)
    assert sum(sum(row["costs"].values()) for row in content["per_class"]) == pytest.approx(lacks, abs=1e-9)
    assert sum(s["cost"] for image in content["images"] for s in image["segments"]) == pytest.approx(lacks, abs=1e-9)
    assert errors.image_costs().sum() == pytest.approx(lacks, abs=1e-9)
    for row, tp, fp, fn in zip(content["per_class"], errors.counts.tp, errors.counts.fp, errors.counts.fn, strict=True):
        assert (row["tp"], row["fp"], row["fn"]) == (tp, fp, fn)
        assert (sum(row["false_positives"].values()), sum(row["false_negatives"].values())) == (fp, fn)


def test_strata_confusion_and_calibration_count_every_segment_once(errors: PanopticErrors):
    tp, fp, fn = (int(column.sum()) for column in (errors.counts.tp, errors.counts.fp, errors.counts.fn))
    for name, rows in strata(errors).items():
        if name != "occlusion":
            assert [sum(getattr(row, key) for row in rows) for key in ("tp", "fp", "fn")] == [tp, fp, fn]
    matrix = errors.segment_confusion()
    assert np.trace(matrix) == tp
    assert matrix[:-1].sum() == tp + fn and matrix[:, :-1].sum() == tp + fp
    assert errors.pixel_confusion.sum() <= sum(image.height * image.width for image in errors.images)
    found = calibrate(errors.rows)
    assert (found.count.sum(), found.matched.sum()) == (tp + fp, tp)
    assert found.error == pytest.approx(abs(tp / (tp + fp) - 0.75))


def test_intervals_are_seeded_and_those_of_a_slow_loop(errors: PanopticErrors):
    first, again = bootstrap(errors, draws=200, seed=3), bootstrap(errors, draws=200, seed=3)
    assert first.groups == again.groups
    assert bootstrap(errors, draws=200, seed=4).groups != first.groups
    number = len(errors.images)
    times = np.random.default_rng(3).multinomial(number, np.full(number, 1 / number), size=200)
    tables = [image.rows for image in errors.images]
    drawn = [
        Losses.of(TABLE, np.concatenate([table for table, k in zip(tables, row, strict=True) for _ in range(k)])).pq()
        for row in times
    ]
    assert first.groups["All"] == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_two_models_differ_by_the_sum_of_what_was_gained_and_lost(errors: PanopticErrors, tmp_path: Path):
    gt_json, pred_json = _files(tmp_path)
    content = json.loads(pred_json.read_text())
    for annotation in content["annotations"]:
        for row in annotation["segments_info"][:1]:
            row["category_id"] = ROAD
    pred_json.write_text(json.dumps(content))
    worse = explain_files(gt_json, pred_json)
    found = compare_models(errors, worse, draws=50)
    assert found.costs.sum() == pytest.approx(worse.losses.pq() - errors.losses.pq())
    assert found.images.sum() == pytest.approx(found.costs.sum())
    assert (found.gained.sum() - found.lost.sum()) == worse.counts.tp.sum() - errors.counts.tp.sum()
    assert found.lost.sum() > 0
    with pytest.raises(ValueError, match="same images"):
        compare_models(errors, PanopticErrors(TABLE, worse.images[1:], worse.counts, worse.pixel_confusion))


def test_an_area_that_gives_impossible_losses_is_named(tmp_path: Path):
    image = draw("1111", [segment(1, CAR, area=1)], "2222", {2: CAR})
    with pytest.raises(ValueError, match=r"image 0: .*area of segment 1 is 1 px in the JSON, and its mask has 4"):
        explain_files(*write_coco(tmp_path, [image]))


def test_an_evaluation_explains_itself_as_files_do_also_when_gathered_in_parts(
    tmp_path: Path, register: Callable[..., str]
):
    gt_json, pred_json = _files(tmp_path, number=6)
    of_files = explain_files(gt_json, pred_json)
    content = json.loads(gt_json.read_text())
    ids = [annotation["image_id"] for annotation in content["annotations"]]
    images = [{"id": id_, "file_name": f"{id_}.jpg", "height": 12, "width": 16} for id_ in ids]
    gt_json.write_text(json.dumps({**content, "images": images}))
    name = register("explained", tmp_path, tmp_path / "gt", gt_json)
    predictions = json.loads(pred_json.read_text())["annotations"]
    maps = [torch.from_numpy(read_panoptic_png(str(tmp_path / "pred" / a["file_name"]))) for a in predictions]
    outputs = [{"panoptic_seg": (ids, a["segments_info"])} for ids, a in zip(maps, predictions, strict=True)]
    evaluator, before = (PanopticQualityEvaluator(name, explain=True) for _ in range(2))
    before.reset()
    before.process(predictions[4:], outputs[4:])
    evaluator.reset()
    evaluator.add_state(before.state_dict())
    evaluator.process(predictions[:4], outputs[:4])
    evaluator.evaluate()
    assert evaluator.errors is not None
    assert evaluator.errors.rows.tobytes() == of_files.rows.tobytes()
    assert evaluator.errors.totals() == of_files.totals()
    assert (evaluator.errors.pixel_confusion == of_files.pixel_confusion).all()
