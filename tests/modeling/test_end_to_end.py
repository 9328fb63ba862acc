"""detectron2's end-to-end cases for instance models, on models of this package's configs and of its built-in config."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from small_models import detectron2_cfg

from panoptic_fpn_ext import model_zoo

CONFIGS = [
    "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow",
    "SyntheticStreet-PanopticSegmentation/separate_R_18_narrow_x2",
    "User-PanopticSegmentation/panoptic_fpn_efficientnet_lite0",
    pytest.param("detectron2", marks=pytest.mark.slow),
]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


def _cfg(name: str) -> CfgNode:
    cfg = detectron2_cfg("PanopticFPNExt") if name == "detectron2" else model_zoo.get_config(name)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    # Where the config takes these from the dataset.
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES or 6
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES or 4
    return cfg


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda name: str(name).split("/")[-1])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(43)
    return build_model(_cfg(request.param))


def _instances(height: int, width: int, number: int) -> Instances:
    """Boxes of less than two pixels and masks of noise, which have nothing to do with them: as detectron2's test."""
    boxes = torch.rand(number, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.arange(number) % 3
    instances.gt_masks = BitMasks(torch.rand(number, height, width) > 0.5)
    return instances


def _train(model: torch.nn.Module, *inputs: dict) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    with EventStorage():
        losses = model(list(inputs))
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    sum(losses.values()).backward()
    return losses


def _input(height: int, width: int, number: int) -> dict:
    return {"image": torch.rand(3, height, width), "instances": _instances(height, width, number)}


@pytest.mark.parametrize("numbers", [(0, 0), (0, 3), (3, 0)])
def test_images_without_annotations(model: torch.nn.Module, numbers: tuple[int, int]):
    losses = _train(model, _input(100, 126, numbers[0]), _input(100, 125, numbers[1]))
    assert {"loss_sem_seg", "loss_cls", "loss_box_reg", "loss_mask"} <= set(losses)


def test_images_of_noise(model: torch.nn.Module):
    with torch.no_grad():
        outputs = model.eval()([{"image": torch.rand(3, 100, 125)}, {"image": torch.rand(3, 100, 124)}])
    assert [tuple(output["panoptic_seg"][0].shape) for output in outputs] == [(100, 125), (100, 124)]


@pytest.mark.parametrize("value", NOT_FINITE)
def test_pixels_that_are_not_finite(model: torch.nn.Module, value: float):
    """In all pixels, and in one image of two: the other's result must not change."""
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = model.eval()([{"image": image}])[0]
        spoilt, other = model([{"image": torch.full((3, 64, 96), value)}, {"image": image}])
    assert len(spoilt["instances"]) == 0
    panoptic_seg, segments = spoilt["panoptic_seg"]
    assert set(panoptic_seg.unique().tolist()) - {0} == {segment["id"] for segment in segments}
    torch.testing.assert_close(other["sem_seg"], expected["sem_seg"], rtol=1e-3, atol=1e-4)
    assert len(other["instances"]) == len(expected["instances"])


@pytest.mark.parametrize("value", NOT_FINITE)
def test_features_that_are_not_finite(model: torch.nn.Module, value: float):
    channels = model.roi_heads.box_head.fc1.in_features // 49  # 7×7 px of each RoI
    features = {f"p{i}": torch.full((1, channels, 512 >> i, 512 >> i), value) for i in range(2, 7)}
    proposals = Instances((510, 510))
    proposals.proposal_boxes = Boxes(torch.tensor([[10.0, 10, 20, 20]]))
    proposals.objectness_logits = torch.tensor([[1.0]])
    images = ImageList(torch.full((1, 3, 512, 512), value), [(510, 510)])
    detections, _ = model.eval().roi_heads(images, features, [proposals])
    assert len(detections[0]) == 0
