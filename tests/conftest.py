"""Fixtures that all tests share."""

import contextlib
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input_data import global_state_restored
from cityscapes_tree import draw_cityscapes
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from places import REAL_IMAGES, REPOSITORY

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.data import register_coco_panoptic
from panoptic_fpn_ext.data.cityscapes_panoptic import register_cityscapes_panoptic
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street

# Helpers that tests assert with: what they compare is said as it is in the tests themselves.
pytest.register_assert_rewrite("evaluator_batches", "explained_images", "format_drawing", "small_graphs")


def _real_images(name: str) -> Path:
    folder = REAL_IMAGES / name
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder} (PANOPTIC_FPN_EXT_IMAGES names the folder that has {name})")
    return folder


@pytest.fixture(scope="session")
def coco_sample_dir() -> Path:
    """COCO val2017 images with official panoptic ground truth, laid out as COCO is."""
    return _real_images("coco_sample")


@pytest.fixture(scope="session")
def labelme_facade_dir() -> Path:
    """Street photographs in COCO panoptic format."""
    return _real_images("labelme_facade")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what detectron2 draws from


@pytest.fixture
def restored_state() -> Iterator[None]:
    """For whole files: datasets and log handlers that come up in a test are forgotten after it."""
    with global_state_restored():
        yield


@pytest.fixture(autouse=True)
def _rehearsed_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are weighed on PyTorch's "meta" device, which is what C++ takes the rehearsal's pretended GPU for."""
    if request.path.parent.name == "rehearsal":
        monkeypatch.setattr("panoptic_fpn_ext.engine.checkpoints.weight_files._refuse_bombs", lambda path: None)


RELEASED_STREET = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


@pytest.fixture(scope="session")
def released_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the export command wrote of the released street model, and as ``said.txt`` what it printed.

    With OpenVINO installed the folder has its files too. Processes that share the tests make it once.
    """
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    from panoptic_fpn_ext.export.__main__ import main as export

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "released_export"
    formats = "onnx,openvino" if find_spec("openvino") else "onnx"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "said.txt").is_file():
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                assert export([RELEASED_STREET, "zoo", str(folder), "--format", formats]) == 0, said.getvalue()
            (folder / "said.txt").write_text(said.getvalue(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a small synthetic street: 8 + 4 images of 64×96 px."""
    root = tmp_path_factory.mktemp("data") / "street"
    make_synthetic_street(str(root), StreetSettings(num_train=8, num_val=4, height=64, width=96))
    return root


@pytest.fixture
def register() -> "Callable[..., str]":
    """Registers datasets in COCO panoptic format and forgets them after the test; returns the name."""
    names = []

    def register_one(name: str, *paths: "str | Path", **kwargs: object) -> str:
        register_coco_panoptic(name, *map(str, paths), **kwargs)
        names.append(name)
        return name

    yield register_one
    for name in set(names):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def street_datasets(small_street: Path, register: "Callable[..., str]") -> tuple[str, str]:
    """Names of the small synthetic street's training and validation sets."""
    train, val = (
        register(
            f"small_street_{split}",
            small_street / split,
            small_street / f"panoptic_{split}",
            small_street / "annotations" / f"panoptic_{split}.json",
        )
        for split in ("train", "val")
    )
    return train, val


@pytest.fixture(scope="session")
def small_cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a tree as the Cityscapes download: 6 + 3 images of 64×128 px."""
    return draw_cityscapes(tmp_path_factory.mktemp("data") / "cityscapes")


@pytest.fixture
def no_cityscapes() -> tuple[str, str]:
    """Names of Cityscapes' training and validation sets; nothing is known of them before and after the test."""
    names = "cityscapes_panoptic_train", "cityscapes_panoptic_val"

    def forget() -> None:
        for name in names:
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)

    forget()
    yield names
    forget()


@pytest.fixture
def cityscapes_datasets(small_cityscapes: Path, no_cityscapes: tuple[str, str]) -> tuple[str, str]:
    """Names of the small Cityscapes' training and validation sets."""
    register_cityscapes_panoptic(str(small_cityscapes))
    return no_cityscapes


@pytest.fixture
def tiny_cfg(street_datasets: tuple[str, str], tmp_path: Path) -> CfgNode:
    """Config of the smallest Panoptic FPN worth the name, on the small synthetic street; an iteration takes 0.2 s."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(
        str(REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml")
    )
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.RPN.CONV_DIMS", [32], "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32])
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.DEVICE", "cpu"])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = street_datasets[:1], street_datasets[1:]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64,), 64
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 2, 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 1
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg
