"""What the evaluator of PQ leaves behind: predictions, the report, and the log."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluator_batches import as_batch, evaluate, in_percent
from oracles_pq import CATEGORIES, Image, panopticapi_results, write_coco

from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator, pq_compute
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def test_a_group_without_category_is_nan(dataset: Callable[..., str], tmp_path: Path):
    empty = Image(np.zeros((2, 2), int), [], np.zeros((2, 2), int), [])
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, [empty])[0]), str(tmp_path / "out"))
    assert all(math.isnan(value) for value in evaluate(evaluator, as_batch([empty])).values())
    assert json.loads((tmp_path / "out" / "panoptic_quality.json").read_text())["All"]["pq"] is None


def test_what_is_written(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    gt_json, pred_json = write_coco(tmp_path, images)
    out = tmp_path / "out"
    evaluate(PanopticQualityEvaluator(dataset(gt_json), str(out)), as_batch(images))
    written = ["evaluation.json", "panoptic_quality.json", "predictions", "predictions.json"]
    assert sorted(path.name for path in out.iterdir()) == written
    written = json.loads((out / "predictions.json").read_text())
    for annotation in written["annotations"]:
        for segment in annotation["segments_info"]:
            segment.pop("score", None)  # of things, which the reference's file lacks
    assert written["annotations"] == json.loads(pred_json.read_text())["annotations"]
    assert written["categories"] == CATEGORIES
    for index, image in enumerate(images):
        assert np.array_equal(read_panoptic_png(str(out / "predictions" / f"{index}.png")), image.pred_map)
    report, expected = json.loads((out / "panoptic_quality.json").read_text()), panopticapi_results(gt_json, pred_json)
    assert [report[group] for group in ("All", "Things", "Stuff")] == [expected[g] for g in ("All", "Things", "Stuff")]
    assert {row["id"]: {k: row[k] for k in ("pq", "sq", "rq")} for row in report["per_class"]} == expected["per_class"]


def test_the_log_has_both_tables(
    images: list[Image], dataset: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "panoptic_fpn_ext"):
        evaluate(PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0])), as_batch(images))
    assert "|  All   |" in caplog.text and "#categories" in caplog.text
    assert "|   person   |" in caplog.text and "|  TP  |" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_images_of_the_same_name_in_different_folders_do_not_overwrite_each_other(dataset, tmp_path, images):
    gt_json, _ = write_coco(tmp_path, images[:3])
    content = json.loads(gt_json.read_text())
    for index, annotation in enumerate(content["annotations"]):
        path = tmp_path / "gt" / f"town_{index}" / "street.v1.png"
        path.parent.mkdir()
        (tmp_path / "gt" / annotation["file_name"]).rename(path)
        annotation["file_name"] = f"town_{index}/street.v1.png"
    gt_json.write_text(json.dumps(content))
    inputs, outputs = as_batch(images[:3])
    for index, one in enumerate(inputs):
        one["file_name"] = f"town_{index}/street.v1.jpg"
    out = tmp_path / "out"
    found = evaluate(PanopticQualityEvaluator(dataset(gt_json), str(out)), (inputs, outputs))
    assert in_percent(pq_compute(gt_json, out / "predictions.json")) == found
    written = {a["image_id"]: a["file_name"] for a in json.loads((out / "predictions.json").read_text())["annotations"]}
    assert written == {0: "street.v1.png", 1: "street.v1_2.png", 2: "street.v1_3.png"}


def test_evaluating_twice_keeps_the_predictions(dataset, tmp_path, images):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]), str(tmp_path / "out"))
    first = evaluate(evaluator, as_batch(images))
    written = (tmp_path / "out" / "predictions.json").read_text()
    assert evaluator.evaluate() == {"panoptic_seg": first}
    assert (tmp_path / "out" / "predictions.json").read_text() == written


def test_an_infinite_iou_is_null_in_the_report(dataset, tmp_path):
    """The union follows the JSON: area 0 and a prediction of two pixels on the segment make it 0."""
    gt_map = np.array([[1, 1, 2, 2]])
    segments = [{"id": 1, "category_id": 7, "area": 0}, {"id": 2, "category_id": 200, "area": 2}]
    image = Image(gt_map, [{**s, "iscrowd": 0} for s in segments], gt_map, segments)
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, [image])[0]), str(tmp_path / "out"))
    found = evaluate(evaluator, as_batch([image]))
    assert found["PQ_th"] == math.inf and found["PQ_st"] == 100
    report = json.loads((tmp_path / "out" / "panoptic_quality.json").read_text())
    assert report["Things"]["pq"] is None and report["Stuff"]["pq"] == 1
    assert [row["pq"] for row in report["per_class"]] == [None, 0, 1, 0]
