"""PQ, AP and mIoU against the official scripts on the same predictions."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapes_tree import THINGS
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official_ap
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official_pq
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official_miou
from cityscapesscripts.helpers.labels import trainId2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import launch
from detectron2.structures import Instances
from detectron2.utils import comm
from PIL import Image

from panoptic_fpn_ext.cityscapes_labels import read_instance_ids
from panoptic_fpn_ext.data.cityscapes_panoptic import register_cityscapes_panoptic
from panoptic_fpn_ext.engine.processes.launch import end_process_groups
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.cityscapes import CityscapesInstanceEvaluator, image_overlaps
from panoptic_fpn_ext.evaluation.sem_seg_evaluator import PanopticSemSegEvaluator, summarize_confusion


@pytest.fixture(autouse=True)
def official_scripts(monkeypatch):
    """They use a function that NumPy 2.4 no longer has, and write files that it gives numbers JSON does not know."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(official_ap, "writeDict2JSON", lambda content, path: None)
    for script in (official_ap, official_miou):
        for key, value in {"quiet": True, "JSONOutput": False, "predictionWalk": None}.items():
            monkeypatch.setattr(script.args, key, value)


def _instance_ids(record: dict) -> np.ndarray:
    path = record["file_name"].replace("leftImg8bit/", "gtFine/", 1)
    return read_instance_ids(path.replace("leftImg8bit.png", "gtFine_instanceIds.png"))


def _predict(record: dict, seed: int) -> dict:
    """The ground truth, bent: things moved, some of another class, some twice, some out of nothing, every class in
    the semantics; a group and a caravan are predicted too.
    """
    rng = np.random.default_rng(seed)
    ids = _instance_ids(record)
    masks, classes = [], []
    for id_ in [i for i in np.unique(ids).tolist() if (i if i < 1000 else i // 1000) in THINGS]:
        label = min(i for i in (id_, id_ // 1000) if i in THINGS)
        for _ in range(rng.integers(1, 3)):
            masks.append(np.roll(ids == id_, rng.integers(-4, 5, 2), axis=(0, 1)))
            classes.append(int(rng.integers(8)) if label == 29 or rng.random() < 0.2 else label - 24)
    for _ in range(3):
        box = np.zeros(ids.shape, bool)
        y, x = rng.integers(0, 50), rng.integers(0, 100)
        box[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
        masks.append(box)
        classes.append(int(rng.integers(8)))
    masks.append(np.zeros(ids.shape, bool))
    classes.append(0)
    instances = Instances(ids.shape)
    instances.pred_masks = torch.from_numpy(np.stack(masks))
    instances.pred_classes = torch.tensor(classes)
    instances.scores = torch.from_numpy(rng.integers(1, 20, len(masks)) / 20).float()  # with ties
    return {"instances": instances, "sem_seg": _semantics(ids, rng), "panoptic_seg": _panoptic(ids, rng)}


def _semantics(ids: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    labels = np.where(ids >= 1000, ids // 1000, ids)
    train_ids = {label.id: train_id for train_id, label in trainId2label.items() if 0 <= train_id < 19}
    logits = rng.random((19, *ids.shape)).astype(np.float32)
    for label, train_id in train_ids.items():
        logits[train_id] += 0.8 * (labels == label)
    return torch.from_numpy(logits)


def _panoptic(ids: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, list[dict]]:
    moved = np.roll(ids, rng.integers(-3, 4, 2), axis=(0, 1))
    result, segments = np.zeros(ids.shape, np.int32), []
    for number, id_ in enumerate(np.unique(moved).tolist(), start=1):
        label = id_ if id_ < 1000 else id_ // 1000
        isthing = label in THINGS
        train_id = next((t for t, x in trainId2label.items() if x.id == label and 0 <= t < 19), int(rng.integers(11)))
        result[moved == id_] = number
        category_id = train_id - 11 if isthing and train_id >= 11 else min(train_id, 10)
        segments.append({"id": number, "category_id": category_id, "isthing": isthing and train_id >= 11})
    return torch.from_numpy(result), segments


def _run(evaluator, name: str) -> dict:
    evaluator.reset()
    for seed, record in enumerate(DatasetCatalog.get(name)):
        evaluator.process([record], [_predict(record, seed)])
    return evaluator.evaluate()


def test_pq_agrees_with_the_official_evaluation(cityscapes_datasets, tmp_path):
    for name in cityscapes_datasets:
        folder = tmp_path / name
        ours = _run(PanopticQualityEvaluator(name, str(folder)), name)["panoptic_seg"]
        metadata = MetadataCatalog.get(name)
        theirs = official_pq.evaluatePanoptic(
            metadata.panoptic_json,
            metadata.panoptic_root,
            str(folder / "predictions.json"),
            str(folder / "predictions"),
            str(folder / "official.json"),
        )
        for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
            for key in ("pq", "sq", "rq"):
                assert ours[key.upper() + suffix] == pytest.approx(100 * theirs[group][key], abs=1e-6)
        assert 5 < ours["PQ"] < 95


def test_miou_agrees_with_the_official_evaluation(cityscapes_datasets, tmp_path):
    name = cityscapes_datasets[0]
    ours = _run(PanopticSemSegEvaluator(name, count_absent_classes=True), name)["sem_seg"]
    predictions, truth = [], []
    for seed, record in enumerate(DatasetCatalog.get(name)):
        train_ids = _predict(record, seed)["sem_seg"].argmax(dim=0).numpy()
        path = str(tmp_path / f"{record['image_id']}.png")
        Image.fromarray(np.array([trainId2label[i].id for i in range(19)], np.uint8)[train_ids]).save(path)
        predictions.append(path)
        gt = os.path.join(MetadataCatalog.get(name).gt_dir, record["image_id"].split("_")[0])
        truth.append(os.path.join(gt, f"{record['image_id']}_gtFine_labelIds.png"))
    theirs = official_miou.evaluateImgLists(predictions, truth, official_miou.args)
    assert ours["mIoU"] == pytest.approx(100 * theirs["averageScoreClasses"], abs=1e-6)
    for name in ("road", "car", "train", "wall"):
        assert ours[f"IoU-{name}"] == pytest.approx(100 * theirs["classScores"][name], abs=1e-6, nan_ok=True)
    assert ours["IoU-train"] == 0  # none there, some predicted


def _official_ap(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The script on its own kind of files: a text file an image, a PNG an instance."""
    monkeypatch.setattr(official_ap.args, "predictionPath", str(folder))
    monkeypatch.setattr(official_ap.args, "gtInstancesFile", str(folder / "truth.json"))
    predictions, truth = [], []
    for seed, record in enumerate(DatasetCatalog.get(name)):
        instances, lines = _predict(record, seed)["instances"], []
        for i in range(len(instances)):
            path = folder / f"{record['image_id']}_{i}.png"
            Image.fromarray(instances.pred_masks[i].numpy().astype(np.uint8) * 255).save(path)
            lines.append(f"{path.name} {24 + int(instances.pred_classes[i])} {float(instances.scores[i])}\n")
        predictions.append(folder / f"{record['image_id']}.txt")
        predictions[-1].write_text("".join(lines))
        gt = os.path.join(MetadataCatalog.get(name).gt_dir, record["image_id"].split("_")[0])
        truth.append(os.path.join(gt, f"{record['image_id']}_gtFine_instanceIds.png"))
    return official_ap.evaluateImgLists([str(path) for path in predictions], truth, official_ap.args)["averages"]


def test_ap_agrees_with_the_official_evaluation(cityscapes_datasets, tmp_path, monkeypatch):
    for name in cityscapes_datasets:
        ours = _run(CityscapesInstanceEvaluator(name), name)["segm"]
        (folder := tmp_path / name).mkdir()
        theirs = _official_ap(name, folder, monkeypatch)
        assert ours["AP"] == pytest.approx(100 * theirs["allAp"], abs=1e-6)
        assert ours["AP50"] == pytest.approx(100 * theirs["allAp50%"], abs=1e-6)
        assert ours["AP-car"] == pytest.approx(100 * theirs["classes"]["car"]["ap"], abs=1e-6)
        assert 1 < ours["AP"] < 99
        assert np.isnan(ours["AP-train"]) and not np.isnan(ours["AP-car"])


def _evaluate_share(root: str, path: str) -> None:
    register_cityscapes_panoptic(root, ["train"])
    evaluator = CityscapesInstanceEvaluator("cityscapes_panoptic_train")
    records = list(enumerate(DatasetCatalog.get("cityscapes_panoptic_train")))
    for seed, record in records[comm.get_rank() :: comm.get_world_size()]:
        evaluator.process([record], [_predict(record, seed)])
    results = evaluator.evaluate()
    if comm.is_main_process():
        torch.save(dict(results["segm"]), path)
    else:
        assert results is None
    end_process_groups()


@pytest.mark.slow
def test_two_processes_give_the_same_ap(cityscapes_datasets, small_cityscapes, tmp_path):
    path = str(tmp_path / "results.pth")
    launch(_evaluate_share, 2, dist_url="auto", args=(str(small_cityscapes), path))
    alone = _run(CityscapesInstanceEvaluator(cityscapes_datasets[0]), cityscapes_datasets[0])["segm"]
    assert torch.load(path) == pytest.approx(dict(alone), nan_ok=True)


def test_ap_where_no_prediction_counts(cityscapes_datasets):
    """Where the script fails: cars there, none found, the only predicted one on void."""
    evaluator = CityscapesInstanceEvaluator(cityscapes_datasets[0])
    record = DatasetCatalog.get(cityscapes_datasets[0])[0]
    ids = _instance_ids(record)
    instances = Instances(ids.shape)
    instances.pred_masks, instances.pred_classes = torch.from_numpy(ids == 4)[None], torch.tensor([2])
    instances.scores = torch.ones(1)
    evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()["segm"]
    assert results["AP"] == results["AP-car"] == 0
    evaluator.reset()
    assert np.isnan(evaluator.evaluate()["segm"]["AP"])


def test_overlaps_of_an_image_drawn_by_hand():
    ids = np.array([[26, 26000, 26000], [7, 26000, 0]])
    instances = Instances(ids.shape)
    instances.pred_masks = torch.tensor([[[1, 1, 0], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]]).bool()
    instances.pred_classes, instances.scores = torch.tensor([1, 0]), torch.tensor([0.5, 0.25])
    came = image_overlaps(ids, instances, [24, 26])
    assert came.ids.tolist() == [0, 7, 26, 26000] and came.areas.tolist() == [1, 1, 1, 3]
    assert came.labels.tolist() == [26, 24] and came.scores.tolist() == [0.5, 0.25]
    assert came.overlaps.tolist() == [[1, 0, 1, 2], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(5, 5\)"):
        image_overlaps(np.zeros((5, 5), int), instances, [24, 26])


def test_a_class_that_is_only_predicted():
    confusion = np.array([[3, 1], [0, 0]])
    assert np.isnan(summarize_confusion(confusion, ["a", "b"])["IoU-b"])
    results = summarize_confusion(confusion, ["a", "b"], count_absent_classes=True)
    assert (results["IoU-b"], results["mIoU"]) == (0, pytest.approx(100 * 3 / 4 / 2))
    assert results["mACC"] == pytest.approx(75)


def test_the_image_without_ground_truth_is_named(cityscapes_datasets):
    evaluator = CityscapesInstanceEvaluator(cityscapes_datasets[1])
    record = {"file_name": str(Path("leftImg8bit", "val", "lindau", "lindau_000099_000019_leftImg8bit.png"))}
    with pytest.raises(ValueError, match=r"val/lindau/lindau_000099_000019_gtFine_instanceIds\.png"):
        evaluator.process([record], [{"instances": None}])
