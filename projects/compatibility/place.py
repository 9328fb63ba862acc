"""Where programs are tried: two drawn images in COCO's layout, and a narrow network of COCO's categories."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_panoptic_separated
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from detectron2.modeling import build_model
from PIL import Image
from rows import WIDTH

from panoptic_fpn_ext.data import PanopticDatasetMapper

__all__ = ["DATASET", "DRAWN", "LAZY", "NARROW", "SIZE", "Place", "prepare", "register_drawn"]

DATASET: Final = "coco_2017_val_100_panoptic_separated"
DRAWN: Final = "drawn_coco_panoptic_separated"
CONFIG: Final = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x"
SIZE: Final = (64, 96)
NARROW: Final = [
    *("MODEL.META_ARCHITECTURE", "PanopticFPNExt"),  # the one line; what follows makes it small
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "DATASETS.TRAIN", (DATASET,), "DATASETS.TEST", (DATASET,)),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.FPN.OUT_CHANNELS", WIDTH, "MODEL.ROI_BOX_HEAD.FC_DIM", WIDTH, "MODEL.ROI_MASK_HEAD.CONV_DIM", WIDTH),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", WIDTH, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 50),
    *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 1e-4, "TEST.DETECTIONS_PER_IMAGE", 10),
]
LAZY: Final = f"""
from detectron2 import model_zoo
from panoptic_fpn_ext import model_zoo as ours  # the import
from rows import narrow_lazy_model

cfg = model_zoo.get_config("{CONFIG}.py")
dataloader, lr_multiplier, optimizer, train = cfg.dataloader, cfg.lr_multiplier, cfg.optimizer, cfg.train
model = narrow_lazy_model(things=80, semantic_classes=54)  # ours.get_config("common/models/panoptic_fpn.py").model
dataloader.train.dataset.names = dataloader.test.dataset.names = "{DATASET}"
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.train.total_batch_size = train.max_iter = 2
train.init_checkpoint, train.device = "", "cpu"
"""


class Place(NamedTuple):
    """Where hosts work: a folder with the drawn images, and detectron2's own scripts, if they are there."""

    folder: Path
    detectron2: Path | None

    def config(self) -> CfgNode:
        """As detectron2's scripts read it."""
        cfg = get_cfg()
        cfg.merge_from_file(model_zoo.get_config_file(f"{CONFIG}.yaml"))
        cfg.merge_from_list([*NARROW, "OUTPUT_DIR", str(self.folder / "output"), "DATASETS.TEST", (DRAWN,)])
        return cfg

    def weights(self) -> str:
        """A checkpoint of the narrow network."""
        torch.manual_seed(0)
        DetectionCheckpointer(build_model(self.config()), str(self.folder)).save("weights")
        return str(self.folder / "weights.pth")

    def batch(self) -> list[dict[str, Any]]:
        """The images as the trainer gets them."""
        mapper = PanopticDatasetMapper(True, categories=None, augmentations=[])
        return [mapper(one) for one in DatasetCatalog.get(DRAWN)]


def prepare(folder: Path) -> None:
    """Draw two images with an instance and a region each, in COCO's layout, under ``$DETECTRON2_DATASETS``."""
    coco = folder / "coco"
    for name in ("val2017", "panoptic_val2017_100", "panoptic_stuff_val2017_100", "annotations"):
        (coco / name).mkdir(parents=True, exist_ok=True)
    things, stuff = ([row["id"] for row in COCO_CATEGORIES if row["isthing"] == kind] for kind in (1, 0))
    generator, (height, width) = np.random.default_rng(0), SIZE
    images, instances, panoptic = [], [], []
    for number in (1, 2):
        name, ids = f"{number:012d}", np.full(SIZE, 2, np.uint8)
        ids[10:40, 10:50] = 1
        box = [10, 10, 40, 30]
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(coco / f"val2017/{name}.jpg")
        Image.fromarray(np.dstack([ids, ids * 0, ids * 0])).save(coco / f"panoptic_val2017_100/{name}.png")
        # detectron2's prepare_panoptic_fpn.py: 0 for things, stuff from 1 on.
        Image.fromarray((ids - 1) * np.uint8(number)).save(coco / f"panoptic_stuff_val2017_100/{name}.png")
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        common = {"image_id": number, "category_id": things[number], "iscrowd": 0, "area": 1200, "bbox": box}
        instances.append({**common, "id": number, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]})
        region = {"id": 2, "category_id": stuff[number - 1], "iscrowd": 0, "area": height * width - 1200}
        segments = [{**common, "id": 1}, {**region, "bbox": [0, 0, width, height]}]
        panoptic.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    for name, annotations in (("instances", instances), ("panoptic", panoptic)):
        content: dict[str, Any] = {"images": images, "annotations": annotations, "info": {}}
        content["categories"] = [c for c in COCO_CATEGORIES if c["isthing"] or name == "panoptic"]
        Path(coco, "annotations", f"{name}_val2017_100.json").write_text(json.dumps(content), encoding="utf-8")


def register_drawn(folder: Path) -> None:
    """Register the images of :func:`prepare` as ``DRAWN``, too: built-in names keep the folder they have at import."""
    coco, kind = folder / "coco", "val2017_100"
    register_coco_panoptic_separated(
        DRAWN.removesuffix("_separated"),
        _get_builtin_metadata("coco_panoptic_separated"),
        str(coco / "val2017"),
        str(coco / f"panoptic_{kind}"),
        str(coco / f"annotations/panoptic_{kind}.json"),
        str(coco / f"panoptic_stuff_{kind}"),
        str(coco / f"annotations/instances_{kind}.json"),
    )
