import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data.targets import sem_seg_target
from panoptic_fpn_ext.engine.evaluating.evaluators import load_sem_seg
from panoptic_fpn_ext.evaluation.sem_seg_evaluator import PanopticSemSegEvaluator, summarize_confusion
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def _outputs(records: list[dict], classes: int) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [{"sem_seg": torch.rand(classes, r["height"], r["width"], generator=generator)} for r in records]


def test_same_figures_as_detectron2s_evaluator_on_prepared_files(street_datasets, tmp_path):
    name = street_datasets[1]
    metadata = MetadataCatalog.get(name)
    categories = PanopticCategories.from_metadata(metadata)
    records = DatasetCatalog.get(name)
    prepared = []
    for i, record in enumerate(records):
        ids = read_panoptic_png(record["pan_seg_file_name"])
        target = sem_seg_target(ids, record["segments_info"], categories).numpy().astype(np.uint8)
        Image.fromarray(target).save(tmp_path / f"{i}.png")
        prepared.append({**record, "sem_seg_file_name": str(tmp_path / f"{i}.png")})
    DatasetCatalog.register("prepared", lambda: prepared)
    keys = ("stuff_classes", "stuff_dataset_id_to_contiguous_id", "ignore_label")
    MetadataCatalog.get("prepared").set(**{key: getattr(metadata, key) for key in keys})
    outputs = _outputs(records, categories.num_sem_seg_classes)
    results = []
    for evaluator in (
        PanopticSemSegEvaluator(name),
        SemSegEvaluator("prepared", distributed=False, sem_seg_loading_fn=load_sem_seg),
    ):
        evaluator.reset()
        evaluator.process(records, outputs)
        results.append(evaluator.evaluate()["sem_seg"])
    DatasetCatalog.remove("prepared")
    MetadataCatalog.remove("prepared")
    ours, theirs = results
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], nan_ok=True), key


def test_hand_drawn_confusion():
    # Ground truth: 4 px of a (3 found, 1 called b), 2 px of b (both found), none of c.
    results = summarize_confusion(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert results["IoU-a"] == pytest.approx(100 * 3 / 4)
    assert results["IoU-b"] == pytest.approx(100 * 2 / 3)
    assert np.isnan(results["IoU-c"])
    assert results["mIoU"] == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)
    assert results["fwIoU"] == pytest.approx(100 * (3 / 4 * 4 + 2 / 3 * 2) / 6)
    assert results["mACC"] == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert results["pACC"] == pytest.approx(100 * 5 / 6)


def test_nothing_labelled():
    results = summarize_confusion(np.zeros((2, 2), dtype=np.int64), ["a", "b"])
    assert np.isnan(results["mIoU"])
    assert results["pACC"] == 0


def test_sizes_that_differ(street_datasets):
    evaluator = PanopticSemSegEvaluator(street_datasets[1])
    record = DatasetCatalog.get(street_datasets[1])[0]
    with pytest.raises(ValueError, match=f"{record['file_name']}.*\\(3, 3\\)"):
        evaluator.process([record], [{"sem_seg": torch.rand(8, 3, 3)}])
