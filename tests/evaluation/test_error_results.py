"""Why points of PQ are lost, of whole evaluations: sums, strata, intervals, two models, files and evaluators."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from explained_images import CAR, ROAD, TABLE
from oracles_pq import draw, random_image, segment, write_coco

from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.errors import (
    Losses,
    PanopticErrors,
    bootstrap,
    calibrate,
    compare_models,
    explain_files,
    strata,
)
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


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
