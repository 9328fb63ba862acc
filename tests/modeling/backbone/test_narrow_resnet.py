import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone import build_resnet_backbone

from panoptic_fpn_ext.modeling.backbone import build_narrow_resnet_backbone


def _cfg(depth: int, width: int):
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = width
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return cfg


@pytest.mark.parametrize("depth", [18, 34])
def test_at_full_width_it_is_detectron2s(depth):
    cfg = _cfg(depth, 64)
    ours = build_narrow_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.rand(1, 3, 64, 96)
    for name, feature in theirs(image).items():
        assert torch.equal(ours(image)[name], feature)


@pytest.mark.parametrize("width", [8, 40])
def test_widths_and_strides(width):
    cfg = _cfg(18, width)
    cfg.MODEL.BACKBONE.NAME = "build_narrow_resnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.RESNETS.OUT_FEATURES, 16
    backbone = build_backbone(cfg)
    channels = {name: shape.channels for name, shape in backbone.bottom_up.output_shape().items()}
    assert channels == {"res2": width, "res3": 2 * width, "res4": 4 * width, "res5": 8 * width}
    features = backbone(torch.rand(1, 3, 64, 96))
    assert {name: tuple(f.shape[1:]) for name, f in features.items()} == {
        f"p{i}": (16, 64 // 2**i, -(-96 // 2**i)) for i in range(2, 7)
    }


def test_other_depths_are_refused():
    with pytest.raises(ValueError, match=r"MODEL\.RESNETS\.DEPTH"):
        build_narrow_resnet_backbone(_cfg(50, 32), ShapeSpec(channels=3))
