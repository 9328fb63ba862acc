"""How the evaluator of PQ fails: what is wrong with predictions, ground truth or disk is one error that names it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import MetadataCatalog
from evaluator_batches import as_batch, evaluate, in_percent
from oracles_pq import Image, panopticapi_results, write_coco

from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator, panoptic_evaluator


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
