"""A tiny dataset in COCO panoptic format on disk, to be spoilt by the tests; and scripts of projects/ as modules."""

import argparse
import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import _cached_log_stream, setup_logger
from PIL import Image
from places import REPOSITORY

from panoptic_fpn_ext.engine import argument_parser
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CONFIG = REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml"
HEIGHT, WIDTH = 48, 64
CATEGORIES = [
    {"id": 1, "name": "ball", "isthing": 1},
    {"id": 4, "name": "box", "isthing": 1},
    {"id": 7, "name": "grass", "isthing": 0},
    {"id": 9, "name": "sky", "isthing": 0},
]
# The smallest network that this dataset fits, an iteration takes 0.1 s.
OPTS = [
    *("MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
    *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RPN.CONV_DIMS", "[32]", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "SOLVER.IMS_PER_BATCH", "1", "SEED", "1"),
]


class TinyDataset:
    """``num`` images of a ball and a box on grass under the sky; ``content`` is the JSON, :meth:`save` writes it."""

    def __init__(self, root: Path, num: int = 2) -> None:
        self.images, self.panoptic, self.json = root / "images", root / "panoptic", root / "panoptic.json"
        self.content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for folder in (self.images, self.panoptic):
            folder.mkdir(parents=True)
        for index in range(num):
            self._add(index + 1)
        self.save()

    def _add(self, image_id: int) -> None:
        ids = np.full((HEIGHT, WIDTH), 9, dtype=np.int32)
        ids[24:] = 7
        ids[10 : 30 + image_id, 8:24] = 1
        ids[28:40, 36:60] = 4
        noise = np.random.default_rng(image_id).integers(0, 40, (HEIGHT, WIDTH, 3))
        image = (ids[..., None] * (20, 12, 16) + noise).astype(np.uint8)
        name = f"image_{image_id}"
        Image.fromarray(image).save(self.images / f"{name}.jpg", quality=95)
        write_panoptic_png(str(self.panoptic / f"{name}.png"), ids)
        segments = [{"id": i, "category_id": i, "area": int((ids == i).sum()), "iscrowd": 0} for i in (1, 4, 7, 9)]
        self.content["images"].append({"id": image_id, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        self.content["annotations"].append(
            {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments}
        )

    def save(self) -> None:
        """Write the JSON."""
        self.json.write_text(json.dumps(self.content))

    def image(self, number: int = 1) -> Path:
        """File of an image, counted from 1."""
        return self.images / f"image_{number}.jpg"

    def png(self, number: int = 1) -> Path:
        """File of a panoptic map, counted from 1."""
        return self.panoptic / f"image_{number}.png"

    def segments(self, number: int = 1) -> list[dict[str, Any]]:
        """The JSON's segments of an image, counted from 1."""
        segments: list[dict[str, Any]] = self.content["annotations"][number - 1]["segments_info"]
        return segments

    def registration(self, name: str) -> list[str]:
        """Arguments of ``--register``."""
        return [name, str(self.images), str(self.panoptic), str(self.json)]


def truncate(path: Path, fraction: float = 0.5) -> None:
    """Cut a file's end off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


def project_script(path: str) -> ModuleType:
    """A script of ``projects/`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / "projects" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_net_args(dataset: TinyDataset, name: str, output: Path, *extra: str) -> argparse.Namespace:
    """Arguments of train_net.py on a tiny dataset; ``extra``: more options and ``KEY VALUE`` pairs."""
    flags = [x for x in extra if x.startswith("--")]
    pairs = [x for x in extra if not x.startswith("--")]
    command = ["--config-file", str(CONFIG), "--register", *dataset.registration(name), *flags, *OPTS]
    command += ["DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", str(output)]
    return argument_parser().parse_args([*command, "SOLVER.MAX_ITER", "2", *pairs])


def train_net(dataset: TinyDataset, name: str, output: Path, *extra: str) -> Any:
    """Run train_net.py on a tiny dataset, in this process."""
    return project_script("panoptic_fpn/train_net.py").main(train_net_args(dataset, name, output, *extra))


@contextmanager
def global_state_restored() -> Iterator[None]:
    """Forgets the datasets and log handlers that come up meanwhile."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "panoptic_fpn_ext")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    datasets, metadata = set(DatasetCatalog.list()), set(MetadataCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - datasets:
        DatasetCatalog.remove(name)
    for name in set(MetadataCatalog.list()) - metadata:
        MetadataCatalog.remove(name)
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    _cached_log_stream.cache_clear()
    setup_logger.cache_clear()
