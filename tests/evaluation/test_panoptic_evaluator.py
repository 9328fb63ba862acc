"""The evaluator around the core: what it takes, what it leaves alone, what it writes, and how it fails."""

import contextlib
import copy
import io
import json
import logging
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluators
from oracles_pq import CATEGORIES, Image, panopticapi_results, random_image, write_coco

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator, panoptic_evaluator, pq_compute
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

TABLE = PanopticCategories(CATEGORIES)
KEYS = ["PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"]

Batch = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def dataset() -> Iterator[Callable[..., str]]:
    """Registers ground truth on disk; the dataset is forgotten after the test."""
    names = []

    def register(gt_json: Path, **metadata: Any) -> str:
        names.append(f"panoptic_quality_{len(names)}")
        entry = {**TABLE.metadata(), "panoptic_json": str(gt_json), "panoptic_root": str(gt_json.with_suffix(""))}
        MetadataCatalog.get(names[-1]).set(**{**entry, **metadata})
        return names[-1]

    yield register
    for name in names:
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    rng = np.random.default_rng(5)
    return [random_image(rng) for _ in range(20)]


def as_batch(images: list[Image], image_ids: list[Any] | None = None) -> Batch:
    """What a loader and a model would give for predictions with dataset ids."""
    inputs, outputs = [], []
    for image_id, image in zip(image_ids or range(len(images)), images, strict=True):
        infos = [
            {
                "id": s["id"],
                "category_id": TABLE.category_id(s["category_id"]),
                "isthing": TABLE.isthing(s["category_id"]),
                "score": 0.5,
            }
            for s in image.pred_segments
        ]
        inputs.append({"image_id": image_id, "file_name": f"folder/{image_id}.jpg"})
        outputs.append({"panoptic_seg": (torch.from_numpy(image.pred_map).int(), infos)})
    return inputs, outputs


def evaluate(evaluator: PanopticQualityEvaluator, batch: Batch) -> dict[str, float]:
    evaluator.reset()
    evaluator.process(*batch)
    results = evaluator.evaluate()
    assert results is not None and list(results) == ["panoptic_seg"]
    return dict(results["panoptic_seg"])


def in_percent(results: dict[str, Any]) -> dict[str, float]:
    groups = (("All", ""), ("Things", "_th"), ("Stuff", "_st"))
    return {m.upper() + suffix: 100 * results[g][m] for g, suffix in groups for m in ("pq", "sq", "rq")}


def test_results_are_panopticapis_in_percent(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    files = write_coco(tmp_path, images)
    results = evaluate(PanopticQualityEvaluator(dataset(files[0])), as_batch(images))
    assert list(results) == KEYS
    assert results == in_percent(panopticapi_results(*files))


def test_results_are_detectron2s(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    from panopticapi import evaluation as reference

    name = dataset(write_coco(tmp_path, images)[0])
    inputs, outputs = as_batch(images)
    ours = evaluate(PanopticQualityEvaluator(name), (inputs, outputs))
    theirs = COCOPanopticEvaluator(name)
    theirs.reset()
    theirs.process(inputs, copy.deepcopy(outputs))

    def one_core(*args: Any) -> Any:
        return reference.pq_compute_single_core(0, *args)

    with mock.patch.object(reference, "pq_compute_multi_core", one_core), contextlib.redirect_stdout(io.StringIO()):
        assert ours == theirs.evaluate()["panoptic_seg"]


def test_outputs_stay_as_they_are(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    inputs, outputs = as_batch(images)
    before = copy.deepcopy(outputs)
    evaluate(PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]), str(tmp_path)), (inputs, outputs))
    for old, new in zip(before, outputs, strict=True):
        assert torch.equal(old["panoptic_seg"][0], new["panoptic_seg"][0])
        assert old["panoptic_seg"][1] == new["panoptic_seg"][1]


def test_the_model_may_use_its_buffers_again(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    inputs, outputs = as_batch(images)
    expected = evaluate(evaluator, (inputs, outputs))
    evaluator.reset()
    for input_, output in zip(inputs, outputs, strict=True):
        evaluator.process([input_], [output])
        output["panoptic_seg"][0].zero_()
        output["panoptic_seg"][1].clear()
    assert evaluator.evaluate() == {"panoptic_seg": expected}


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_the_order_of_the_images_changes_no_bit(
    order: str, images: list[Image], dataset: Callable[..., str], tmp_path: Path
):
    inputs, outputs = as_batch(images)
    indices = list(range(len(inputs)))[:: -1 if order == "backwards" else 1]
    if order == "shuffled":
        np.random.default_rng(0).shuffle(indices)
    files = write_coco(tmp_path, images)
    results = evaluate(
        PanopticQualityEvaluator(dataset(files[0])), ([inputs[i] for i in indices], [outputs[i] for i in indices])
    )
    assert results == in_percent(panopticapi_results(*files))


@pytest.mark.parametrize("cache_bytes", [0, 5000, 1 << 20])
def test_evaluations_repeat_with_and_without_cache(
    cache_bytes: int, images: list[Image], dataset: Callable[..., str], tmp_path: Path
):
    gt_json, _ = write_coco(tmp_path, images)
    name, batch = dataset(gt_json), as_batch(images)
    expected = evaluate(PanopticQualityEvaluator(name), batch)
    evaluator = PanopticQualityEvaluator(name, gt_cache_bytes=cache_bytes)
    assert [evaluate(evaluator, batch) for _ in range(3)] == [expected] * 3
    if cache_bytes == 1 << 20:
        for png in (tmp_path / "gt").iterdir():
            png.unlink()
        assert evaluate(evaluator, batch) == expected


def test_image_ids_may_be_strings_and_tensors(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    expected = None
    for number, (in_json, in_loader) in enumerate([("aachen_7", "aachen_7"), (4, np.int64(4)), (4, torch.tensor(4))]):
        gt_json, _ = write_coco(tmp_path / str(number), images[:1], [in_json])
        results = evaluate(PanopticQualityEvaluator(dataset(gt_json)), as_batch(images[:1], [in_loader]))
        expected = expected or results
        np.testing.assert_equal(results, expected)


def test_isthing_may_be_numpys_and_is_optional(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    inputs, outputs = as_batch(images)
    expected = evaluate(evaluator, (inputs, outputs))
    for output in outputs:
        for info in output["panoptic_seg"][1]:
            info["isthing"] = np.bool_(info["isthing"])
    assert evaluate(evaluator, (inputs, outputs)) == expected
    for output, image in zip(outputs, images, strict=True):
        output["panoptic_seg"] = (output["panoptic_seg"][0], image.pred_segments)  # dataset ids already
    assert evaluate(evaluator, (inputs, outputs)) == expected


def test_maps_without_segments_hold_category_and_instance(dataset: Callable[..., str], tmp_path: Path):
    """Panoptic-DeepLab's outputs: label_divisor * category + instance, -1 for void."""
    car, person, sky = 7, 3, 21
    ids = {
        "stuff_dataset_id_to_contiguous_id": {200: 2, sky: 3},
        "thing_dataset_id_to_contiguous_id": {car: 0, person: 1},
    }
    gt_map = np.array([[5, 5, 6, 6, 8, 0]])
    segments = [(5, car), (6, car), (8, sky)]
    gt_segments = [{"id": i, "category_id": c, "iscrowd": 0, "area": int((gt_map == i).sum())} for i, c in segments]
    files = write_coco(tmp_path, [Image(gt_map, gt_segments, gt_map, [])])
    labels = torch.tensor([[0, 0, 1, 1, 3000, -1]], dtype=torch.int32)
    before = labels.clone()
    batch = ([{"image_id": 0, "file_name": "0.jpg"}], [{"panoptic_seg": (labels, None)}])
    results = evaluate(PanopticQualityEvaluator(dataset(files[0], label_divisor=1000, **ids)), batch)
    assert results["PQ"] == results["PQ_th"] == results["PQ_st"] == 100
    assert torch.equal(labels, before)
    with pytest.raises(ValueError, match="label_divisor"):
        evaluate(PanopticQualityEvaluator(dataset(files[0], **ids)), batch)


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


def test_wrong_areas_are_one_warning(
    images: list[Image], dataset: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    wrong = [p._replace(gt_segments=[{**s, "area": s["area"] + 1} for s in p.gt_segments]) for p in images]
    files = write_coco(tmp_path, wrong)
    with caplog.at_level(logging.WARNING, "panoptic_fpn_ext"):
        results = evaluate(PanopticQualityEvaluator(dataset(files[0])), as_batch(wrong))
    assert results == in_percent(panopticapi_results(*files))
    (record,) = caplog.records
    assert f"of {sum(len(p.gt_segments) for p in images)} segments" in record.getMessage()


def test_everything_wrong_is_one_error(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    gt_json, _ = write_coco(tmp_path, images)
    out = tmp_path / "out"
    evaluator = PanopticQualityEvaluator(dataset(gt_json), str(out))
    inputs, outputs = as_batch(images)
    outputs[2] = {"sem_seg": None}
    outputs[3]["panoptic_seg"][0][0, 0] = 12345
    outputs[4]["panoptic_seg"][1].append({"id": 1, "category_id": 99, "isthing": True})
    outputs[5] = {"panoptic_seg": (torch.zeros(3, 3, dtype=torch.int32), [])}
    outputs[6] = {"panoptic_seg": (torch.zeros(12, 16), [])}
    (tmp_path / "gt" / "7.png").write_bytes(b"no image")
    (tmp_path / "gt" / "8.png").unlink()
    inputs[9] = {"image_id": [9], "file_name": "9.jpg"}
    inputs += [{"image_id": "unknown", "file_name": "x.jpg"}, inputs[0]]
    outputs += [outputs[0], outputs[0]]
    evaluator.process(inputs[1:], outputs[1:])
    with pytest.raises(ValueError) as caught:
        evaluator.evaluate()
    message = str(caught.value)
    assert "found 10 problems" in message and message.count("\n  - ") == 10
    for text in (
        "image 2: its output cannot be read (KeyError: 'panoptic_seg')",
        "image 3: prediction: ids [12345] have pixels and are not in segments_info",
        "image 4: prediction: segment 1 has an unknown category: thing with category_id 99",
        "image 5: the prediction has (3, 3) pixels (H, W), the ground truth (12, 16)",
        "image 6",
        "image 7: Panoptic PNG",
        "image 8: Panoptic PNG",
        "image None: its output cannot be read",
        "image 9: no prediction for it",
        "image 'unknown': the ground truth's JSON has no such image",
    ):
        assert text in message
    # What was fine is on disk all the same, and the next evaluation is not burdened with the last one.
    assert len(json.loads((out / "predictions.json").read_text())["annotations"]) >= 15
    (tmp_path / "gt" / "7.png").unlink()
    write_coco(tmp_path, images)
    evaluate(evaluator, as_batch(images))


def test_missing_and_duplicate_images(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    inputs, outputs = as_batch(images)
    with pytest.raises(ValueError, match=r"1 problem:\n  - image 19: no prediction for it"):
        evaluate(evaluator, (inputs[:-1], outputs[:-1]))
    with pytest.raises(ValueError, match=r"1 problem:\n  - image 0: 2 predictions for it"):
        evaluate(evaluator, (inputs + inputs[:1], outputs + outputs[:1]))
    with pytest.raises(ValueError, match=r"found 20 problems \(the first 10 are shown\)"):
        evaluate(evaluator, ([], []))


def test_problems_of_the_ground_truth(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    """They are told before a model has spent its time on the images."""
    twice = {"id": 1, "category_id": 7, "iscrowd": 0, "area": 1}
    gt_json, _ = write_coco(tmp_path, [images[0]._replace(gt_segments=[twice, twice])])
    name = dataset(gt_json)
    with pytest.raises(ValueError, match=r"gt\.json, annotation of image 0 .*\[1\] occur more than once"):
        PanopticQualityEvaluator(name)
    content = json.loads(gt_json.read_text())
    content["annotations"] *= 2
    gt_json.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"gt\.json annotates the same image more than once: 0"):
        PanopticQualityEvaluator(name)


def test_an_unexpected_exception_of_the_worker_surfaces(
    images: list[Image], dataset: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: Any) -> None:
        raise MemoryError("no room")

    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    monkeypatch.setattr(panoptic_evaluator, "count_image", fail)
    with pytest.raises(ValueError, match=r"found 20 problems.*\n.*image 0: MemoryError: no room"):
        evaluate(evaluator, as_batch(images))


def test_files_that_cannot_be_written_are_an_error(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]), str(tmp_path / "out"))
    (tmp_path / "out" / "predictions.json").mkdir()
    with pytest.raises(RuntimeError, match="IsADirectoryError"):
        evaluate(evaluator, as_batch(images))


def test_datasets_without_ground_truth(dataset: Callable[..., str], tmp_path: Path, images: list[Image]):
    with pytest.raises(ValueError, match="panoptic_json"):
        PanopticQualityEvaluator("a_name_that_nothing_is_registered_under")
    MetadataCatalog.remove("a_name_that_nothing_is_registered_under")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        PanopticQualityEvaluator(dataset(tmp_path / "nowhere.json"))
    gt_json, _ = write_coco(tmp_path, images)
    with pytest.raises(FileNotFoundError, match="no_folder"):
        PanopticQualityEvaluator(dataset(gt_json, panoptic_root=str(tmp_path / "no_folder")))
    with pytest.raises(ValueError, match="PNG decoder 'abacus' is not importable"):
        evaluate(PanopticQualityEvaluator(dataset(gt_json), png_decoder="abacus"), as_batch(images))


def test_a_slow_worker_holds_the_loop_up_only_when_the_queue_is_full(
    images: list[Image], dataset: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    inputs, outputs = as_batch(images)
    count, waited = panoptic_evaluator.count_image, []

    def slowly(*args: Any) -> Any:
        time.sleep(0.02)
        return count(*args)

    monkeypatch.setattr(panoptic_evaluator, "count_image", slowly)
    evaluator.reset()
    for input_, output in zip(inputs, outputs, strict=True):
        start = time.perf_counter()
        evaluator.process([input_], [output])
        waited.append(time.perf_counter() - start)
    evaluator.evaluate()
    assert sum(waited[: panoptic_evaluator.MAX_WAITING]) < 0.1 < sum(waited[panoptic_evaluator.MAX_WAITING + 2 :])


def test_memory_stays_below_one_kilobyte_an_image(dataset: Callable[..., str], tmp_path: Path):
    rng = np.random.default_rng(1)
    few, many = 40, 440
    images = [random_image(rng, 40, 40) for _ in range(many)]
    evaluator = PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))
    inputs, outputs = as_batch(images)
    evaluator.reset()
    tracemalloc.start()
    try:
        evaluator.process(inputs[:few], outputs[:few])
        evaluator._worker.finish()
        before, _ = tracemalloc.get_traced_memory()
        evaluator.process(inputs[few:], outputs[few:])
        evaluator._worker.finish()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / (many - few) < 1000
    evaluator.evaluate()


def test_beside_other_evaluators(images: list[Image], dataset: Callable[..., str], tmp_path: Path):
    evaluators = DatasetEvaluators([PanopticQualityEvaluator(dataset(write_coco(tmp_path, images)[0]))])
    evaluators.reset()
    evaluators.process(*as_batch(images))
    assert list(evaluators.evaluate()) == ["panoptic_seg"]


def test_real_images_as_panopticapi(coco_sample_dir: Path, tmp_path: Path):
    from panopticapi import evaluation as reference

    gt_json = coco_sample_dir / "annotations" / "panoptic_val2017.json"
    gt_folder = coco_sample_dir / "panoptic_val2017"
    content = json.loads(gt_json.read_text())
    table = PanopticCategories(content["categories"])
    metadata = MetadataCatalog.get("panoptic_quality_coco_sample")
    metadata.set(panoptic_json=str(gt_json), panoptic_root=str(gt_folder), **table.metadata())
    inputs, outputs = [], []
    for annotation in content["annotations"]:
        ids = np.roll(read_panoptic_png(str(gt_folder / annotation["file_name"])), 11, axis=1)
        infos = [
            {
                "id": s["id"],
                "category_id": table.category_id(s["category_id"]),
                "isthing": table.isthing(s["category_id"]),
            }
            for s in annotation["segments_info"]
        ]
        inputs.append({"image_id": annotation["image_id"], "file_name": annotation["file_name"]})
        outputs.append({"panoptic_seg": (torch.from_numpy(ids), infos)})
    results = evaluate(PanopticQualityEvaluator(metadata.name, str(tmp_path)), (inputs, outputs))
    MetadataCatalog.remove(metadata.name)
    predictions = {a["image_id"]: a for a in json.loads((tmp_path / "predictions.json").read_text())["annotations"]}
    matched = [(a, predictions[a["image_id"]]) for a in content["annotations"]]
    categories = {c["id"]: c for c in content["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        stat = reference.pq_compute_single_core(0, matched, gt_folder, tmp_path / "predictions", categories)
    groups = {
        name: stat.pq_average(categories, flag)[0] for name, flag in (("All", None), ("Things", True), ("Stuff", False))
    }
    assert results == in_percent(groups)
    assert 20 < results["PQ"] < 95


def test_a_dataset_may_have_fewer_images_than_the_json(dataset, tmp_path, images):
    gt_json, _ = write_coco(tmp_path, images)
    (tmp_path / "few").mkdir()
    few_json, _ = write_coco(tmp_path / "few", images[:7])
    batch = as_batch(images[:7])
    found = evaluate(PanopticQualityEvaluator(dataset(gt_json, image_ids=tuple(range(7)))), batch)
    assert found == evaluate(PanopticQualityEvaluator(dataset(few_json)), batch)
    with pytest.raises(ValueError, match="image 7: no prediction"):
        evaluate(PanopticQualityEvaluator(dataset(gt_json, image_ids=tuple(range(8)))), batch)


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
