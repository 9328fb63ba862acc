"""A tiny dataset with all kinds of JSON, to be changed by the tests, and what becomes of them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_input_data import TinyDataset
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as mask_util

from panoptic_fpn_ext.data import register_coco_panoptic
from panoptic_fpn_ext.evaluation.__main__ import main
from panoptic_fpn_ext.evaluation.instance_ground_truth import instance_dataset
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

NAME = "tiny_json"


class Files:
    """A tiny dataset with all kinds of JSON: panoptic and instance annotations, and predictions (two segments of the
    right category, two not). ``save`` writes one; ``training``, ``ground_truth`` and ``evaluation`` say what becomes of
    them.
    """

    def __init__(self, root: Path) -> None:
        self.dataset = TinyDataset(root)
        self.root = root
        panoptic = self.dataset.content = copy.deepcopy(self.dataset.content)
        panoptic["annotations"][0]["segments_info"][1]["iscrowd"] = 1
        predictions = {"annotations": copy.deepcopy(panoptic["annotations"])}
        for annotation in predictions["annotations"]:
            annotation["segments_info"][2]["category_id"] = 9
        self.contents = {"panoptic": panoptic, "instances": self._instances(), "predictions": predictions}
        for kind in self.contents:
            self.save(kind)

    def _instances(self) -> dict[str, Any]:
        annotations = []
        for number in (1, 2):
            ids = read_panoptic_png(str(self.dataset.png(number)))
            polygon = [[8.0, 10, 24, 10, 24, 30 + number, 8, 30.5 + number], [1, 1, 3, 1, 2, 3]]
            box = {"segmentation": polygon, "area": 320.5, "bbox": [8, 10, 16, 20 + number], "iscrowd": 0}
            annotations.append({"id": 2 * number, "image_id": number, "category_id": 1, **box})
            rle = mask_util.encode(np.asfortranarray(ids == 4, dtype=np.uint8))
            rle = {"size": rle["size"], "counts": rle["counts"].decode()}
            row = {"segmentation": rle, "area": 288, "bbox": [36, 28, 24, 12], "iscrowd": 1, "keypoints": [3, 4, 2]}
            annotations.append({"id": 2 * number + 1, "image_id": number, "category_id": 4, **row})
        images = copy.deepcopy(self.dataset.content["images"])
        return {"images": images, "annotations": annotations, "categories": self.dataset.content["categories"][:2]}

    def path(self, kind: str) -> Path:
        return self.dataset.json if kind == "panoptic" else self.root / f"{kind}.json"

    def save(self, kind: str, content: Any = None) -> None:
        self.path(kind).write_text(json.dumps(self.contents[kind] if content is None else content))

    def training(self) -> Any:
        """Segments and polygons that training sees, by file; areas and boxes are not trained on."""
        DatasetCatalog.pop(NAME, None)
        MetadataCatalog.pop(NAME, None)
        paths = map(str, (self.dataset.images, self.dataset.panoptic, self.dataset.json))
        register_coco_panoptic(NAME, *paths, instances_json=str(self.path("instances")))
        return [
            (
                {key: d[key] for key in ("file_name", "pan_seg_file_name", "height", "width")},
                [[s[key] for key in ("id", "category_id", "isthing", "iscrowd")] for s in d["segments_info"]],
                [{**a, "bbox": np.round(a["bbox"]).tolist()} for a in d["annotations"]],
                {key: MetadataCatalog.get(NAME).get(key) for key in ("thing_classes", "stuff_classes", "thing_colors")},
            )
            for d in DatasetCatalog.get(NAME)
        ]

    def ground_truth(self) -> Any:
        """What AP is measured against."""
        self.training()
        MetadataCatalog.pop(f"{NAME}@{self.root}/ap.json", None)
        instance_dataset(NAME, f"{self.root}/ap.json")
        content = json.loads((self.root / "ap.json").read_text())
        keys = ("id", "category_id", "iscrowd", "segmentation")
        annotations = [
            [a[key] for key in keys] + [str(a["image_id"]), round(a["area"] / 10)] for a in content["annotations"]
        ]
        return [annotations, [(str(i["id"]), i["height"], i["width"]) for i in content["images"]]]

    def evaluation(self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
        """Output of the command line; a warning that data do not agree is no silence."""
        capsys.readouterr()
        caplog.clear()
        arguments = [str(self.dataset.json), str(self.path("predictions")), "--gt-folder", str(self.dataset.panoptic)]
        main([*arguments, "--pred-folder", str(self.dataset.panoptic)])
        if "does not agree" in caplog.text:
            raise ValueError(caplog.messages[-1])
        return capsys.readouterr().out


def text_everywhere(content: Any) -> Any:
    """Numbers and flags as text, also deep inside."""
    if isinstance(content, dict):
        return {key: text_everywhere(value) for key, value in content.items()}
    if isinstance(content, list):
        return list(map(text_everywhere, content))
    return str(content) if isinstance(content, int) else content
