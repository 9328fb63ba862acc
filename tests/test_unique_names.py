import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bad_input_data import TinyDataset, global_state_restored
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import register_coco_panoptic
from panoptic_fpn_ext.data.targets import sem_seg_target
from panoptic_fpn_ext.engine import build_dataset_evaluator
from panoptic_fpn_ext.evaluation import pq_compute
from panoptic_fpn_ext.evaluation.__main__ import main
from panoptic_fpn_ext.panoptic_png import read_panoptic_png
from panoptic_fpn_ext.unique_names import distinct_names


@pytest.mark.parametrize(
    ("names", "ids", "expected"),
    [
        ([], [], []),
        (["a", "b"], [3, 1], ["a", "b"]),
        (["a", "b", "a"], [3, 1, 0], ["a (id 3)", "b", "a (id 0)"]),
        (["things", "things"], [None, 7], ["things", "things (id 7)"]),
        (["a", "a", "a (id 1)"], [1, 2, 3], ["a (id 1) (id 1)", "a (id 2)", "a (id 1) (id 3)"]),
    ],
)
def test_distinct_names(names: list[str], ids: list[int], expected: list[str]):
    assert distinct_names(names, ids) == expected
    reversed_names = distinct_names(names[::-1], ids[::-1])
    assert reversed_names == expected[::-1]


@pytest.fixture
def same_names(tmp_path: Path) -> Iterator[tuple[str, TinyDataset]]:
    """Ball and box are both called "window", grass is called "things"."""
    dataset = TinyDataset(tmp_path / "data")
    names = {1: "window", 4: "window", 7: "things", 9: "sky"}
    dataset.content["categories"] = [{**c, "name": names[c["id"]]} for c in dataset.content["categories"]]
    dataset.save()
    with global_state_restored():
        register_coco_panoptic(*dataset.registration("same_names"))
        yield "same_names", dataset


def test_no_figure_of_an_evaluation_is_lost(same_names: tuple[str, TinyDataset], tmp_path: Path):
    name, _ = same_names
    categories = PanopticCategories.from_metadata(MetadataCatalog.get(name))
    evaluator = build_dataset_evaluator(name, str(tmp_path / "output"))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        ids = torch.from_numpy(read_panoptic_png(record["pan_seg_file_name"]))
        labels = sem_seg_target(ids.numpy(), record["segments_info"], categories)
        balls = [s for s in record["segments_info"] if s["isthing"] and s["category_id"] == 0]
        instances = Instances(tuple(ids.shape))
        instances.pred_boxes = Boxes(torch.zeros(len(balls), 4))
        instances.scores = torch.ones(len(balls))
        instances.pred_classes = torch.zeros(len(balls), dtype=torch.int64)
        instances.pred_masks = torch.stack([ids == s["id"] for s in balls])
        segments = [{key: s[key] for key in ("id", "category_id", "isthing")} for s in record["segments_info"]]
        output = {"sem_seg": F.one_hot(labels, 3).permute(2, 0, 1), "instances": instances}
        evaluator.process([record], [{**output, "panoptic_seg": (ids, segments)}])
    results = evaluator.evaluate()
    ap = results["segm"]
    assert ap["AP-window (id 1)"] == pytest.approx(100) and ap["AP-window (id 4)"] == 0
    assert {key for key in results["sem_seg"] if key.startswith("IoU-")} == {
        "IoU-things",
        "IoU-things (id 7)",
        "IoU-sky",
    }


def test_rows_of_the_command_line_can_be_told_apart(
    same_names: tuple[str, TinyDataset], capsys: pytest.CaptureFixture[str]
):
    dataset = same_names[1]
    folder = str(dataset.panoptic)
    arguments = [str(dataset.json), str(dataset.json), "--gt-folder", folder, "--pred-folder", folder]
    main(arguments)
    printed = capsys.readouterr().out
    assert "window (id 1)" in printed and "window (id 4)" in printed and "|      sky      |" in printed
    assert pq_compute(dataset.json, dataset.json, folder, folder)["All"]["pq"] == 1
    assert json.loads(dataset.json.read_text())["categories"][2]["name"] == "things"
