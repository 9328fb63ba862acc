"""The evaluator around the core: its figures, what it takes, what it leaves alone, what it costs."""

import contextlib
import copy
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluators
from evaluator_batches import as_batch, evaluate, in_percent
from oracles_pq import Image, panopticapi_results, random_image, write_coco

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator, panoptic_evaluator
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

KEYS = ["PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"]


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
