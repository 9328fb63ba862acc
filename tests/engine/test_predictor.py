"""Prediction of single images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model

from panoptic_fpn_ext.data import PanopticDatasetMapper, read_image
from panoptic_fpn_ext.engine import PanopticPredictor


@pytest.fixture
def cfg(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    return _with_weights(tiny_cfg, tmp_path)


def _with_weights(cfg: CfgNode, folder: Path) -> CfgNode:
    DetectionCheckpointer(build_model(cfg), str(folder)).save("weights")
    cfg.MODEL.WEIGHTS = str(folder / "weights.pth")
    return cfg


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601", "HSV"])
def test_it_predicts_what_an_evaluation_predicts(tiny_cfg: CfgNode, tmp_path: Path, image_format: str):
    tiny_cfg.INPUT.FORMAT = image_format
    if image_format == "L":
        tiny_cfg.MODEL.PIXEL_MEAN, tiny_cfg.MODEL.PIXEL_STD = [110.0], [1.0]
    cfg = _with_weights(tiny_cfg, tmp_path)
    predictor = PanopticPredictor(cfg)
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=PanopticDatasetMapper(cfg, is_train=False))
    inputs = next(iter(loader))
    with torch.no_grad():
        expected = predictor.model(inputs)[0]
    output = predictor(read_image(inputs[0]["file_name"], "BGR"))
    assert torch.equal(output["sem_seg"], expected["sem_seg"])
    assert torch.equal(output["panoptic_seg"][0], expected["panoptic_seg"][0])
    names = {"thing_classes": predictor.metadata.thing_classes, "stuff_classes": predictor.metadata.stuff_classes}
    for segment, bare in zip(output["panoptic_seg"][1], expected["panoptic_seg"][1], strict=True):
        kind = "thing_classes" if bare["isthing"] else "stuff_classes"
        assert segment == {**bare, "name": names[kind][bare["category_id"]]}


def test_the_channels_of_format_and_pixel_mean_must_agree(cfg: CfgNode):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(ValueError, match=r"'L' has 1 channels, but MODEL\.PIXEL_MEAN has 3 values"):
        PanopticPredictor(cfg)
    cfg.INPUT.FORMAT = "GRAY"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT must be one of .*'GRAY'"):
        PanopticPredictor(cfg)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (70, 50), (1, 3000), (3000, 1), (3000, 2), (5, 2000)])
def test_images_of_any_size_give_maps_of_that_size(cfg: CfgNode, size: tuple[int, int]):
    image = np.zeros((*size, 3), dtype=np.uint8)
    output = PanopticPredictor(cfg)(image)
    assert output["panoptic_seg"][0].shape == size
    assert output["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, *size)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_arrays_are_refused(cfg: CfgNode, image: np.ndarray):
    with pytest.raises(ValueError, match=r"uint8 image of shape \(H, W, 3\)"):
        PanopticPredictor(cfg)(image)


def test_the_config_stays_as_it_is_and_a_missing_gpu_is_no_obstacle(cfg: CfgNode):
    cfg.MODEL.DEVICE = "cuda"
    before = cfg.dump()
    cfg.freeze()
    predictor = PanopticPredictor(cfg)
    assert cfg.dump() == before
    assert next(predictor.model.parameters()).is_cuda == torch.cuda.is_available()
    assert predictor.metadata.name == cfg.DATASETS.TEST[0]


def test_weights_are_needed_and_must_fit(cfg: CfgNode):
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 64
    with pytest.raises(ValueError, match="another architecture"):
        PanopticPredictor(cfg)
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        PanopticPredictor(cfg)


def test_head_sizes_must_fit_the_dataset(cfg: CfgNode):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(ValueError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES is 80: set it to 4"):
        PanopticPredictor(cfg)


def test_unknown_dataset(cfg: CfgNode):
    cfg.DATASETS.TEST = ("nowhere",)
    with pytest.raises(KeyError, match="nowhere"):
        PanopticPredictor(cfg)
