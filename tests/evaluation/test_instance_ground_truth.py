import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from panoptic_fpn_ext.evaluation.instance_ground_truth import instance_annotations, instance_dataset
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def test_annotations_are_the_thing_segments(street_datasets):
    metadata = MetadataCatalog.get(street_datasets[1])
    made = instance_annotations(metadata.panoptic_json, metadata.panoptic_root)
    panoptic = json.loads(Path(metadata.panoptic_json).read_text())
    things = {c["id"] for c in panoptic["categories"] if c["isthing"]}
    expected = [
        (annotation["image_id"], segment, f"{metadata.panoptic_root}/{annotation['file_name']}")
        for annotation in panoptic["annotations"]
        for segment in annotation["segments_info"]
        if segment["category_id"] in things
    ]
    assert len(made["annotations"]) == len(expected) > 0
    for annotation, (image_id, segment, path) in zip(made["annotations"], expected, strict=True):
        assert annotation["image_id"] == image_id
        assert annotation["iscrowd"] == segment["iscrowd"]
        assert annotation["area"] == segment["area"]
        assert annotation["bbox"] == segment["bbox"]
        mask = mask_util.decode(annotation["segmentation"])
        assert np.array_equal(mask.astype(bool), read_panoptic_png(path) == segment["id"])


def test_perfect_detections_have_ap_100(street_datasets, tmp_path):
    name = street_datasets[1]
    evaluator = COCOEvaluator(instance_dataset(name, str(tmp_path / "instances.json")), output_dir=None)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        ids = torch.from_numpy(read_panoptic_png(record["pan_seg_file_name"]))
        things = [s for s in record["segments_info"] if s["isthing"] and not s["iscrowd"]]
        boxes = torch.tensor([s["bbox"] for s in things], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.ones(len(things))
        instances.pred_classes = torch.tensor([s["category_id"] for s in things], dtype=torch.int64)
        instances.pred_masks = torch.stack([ids == s["id"] for s in things])
        evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx(100)
