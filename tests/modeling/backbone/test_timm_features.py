"""Feature extractors of `timm` under a pyramid; no weights are downloaded."""

import subprocess
import sys

import pytest
import torch
from detectron2.layers import ShapeSpec
from small_models import built, tiny_batch, tiny_cfg, training_step
from torch import nn

from panoptic_fpn_ext.engine.settings.options import check_options
from panoptic_fpn_ext.engine.settings.timm_record import record_timm_weights
from panoptic_fpn_ext.modeling.backbone import TimmBackbone, build_timm_fpn_backbone
from panoptic_fpn_ext.modeling.backbone.timm_features import timm_weights

timm = pytest.importorskip("timm")
SMALL = "mobilenetv3_small_050"


def _cfg(name=SMALL, **options):
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_timm_fpn_backbone", 0
    cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.PRETRAINED = name, False
    for key, value in options.items():
        cfg.MODEL.TIMM[key] = value
    return cfg


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        pytest.param("swin_tiny_patch4_window7_224", None, marks=pytest.mark.slow),  # channels last, sizes given
    ],
)
def test_maps_are_those_of_the_extractor_by_stride(name, channels):
    backbone = TimmBackbone(name, out_features=["res2", "res3", "res5"]).eval()
    plain = timm.create_model(name, features_only=True, **({} if channels else {"strict_img_size": False})).eval()
    unexpected = plain.load_state_dict(backbone.features.state_dict(), strict=False).unexpected_keys
    assert not unexpected
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found, theirs = backbone(x), dict(zip(plain.feature_info.reduction(), plain(x), strict=True))
    for level, stride in (("res2", 4), ("res3", 8), ("res5", 32)):
        expected = theirs[stride] if channels else theirs[stride].permute(0, 3, 1, 2)
        torch.testing.assert_close(found[level], expected)
        assert backbone.output_shape()[level] == ShapeSpec(channels=expected.shape[1], stride=stride)


def test_trains_and_predicts_under_a_pyramid():
    model = built(_cfg())
    losses, gradients = training_step(model, tiny_batch())
    assert all(loss.isfinite() for loss in losses.values())
    assert [name for name in gradients if name.startswith("backbone.bottom_up.features.")]
    with torch.no_grad():
        (output,) = model.eval()([{"image": tiny_batch()[0]["image"], "height": 30, "width": 50}])
    assert output["panoptic_seg"][0].shape == (30, 50)


def test_norm_key():
    kinds = {norm: {type(m).__name__ for m in built(_cfg(NORM=norm)).backbone.modules()} for norm in ("", "FrozenBN")}
    assert any("BatchNorm" in kind and "Frozen" not in kind for kind in kinds[""])
    assert not any("BatchNorm" in kind and "Frozen" not in kind for kind in kinds["FrozenBN"])
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.NORM"):
        built(_cfg(NORM="GN"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no model of this name"),
        ("resnet19", "no model of this name"),
        ("resnet18.nobody", "no weights 'nobody' of this model, but .*a1_in1k"),
        ("vit_tiny_patch16_224", r"strides \[16"),
        ("maxvit_tiny_tf_224", "images of any size"),
    ],
)
def test_what_cannot_stand_below_a_pyramid_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build_timm_fpn_backbone(_cfg(name), ShapeSpec(channels=3))


def test_frozen_stages_are_refused():
    cfg = _cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    for refuse in (check_options, built):
        with pytest.raises(ValueError, match=r"MODEL\.BACKBONE\.FREEZE_AT"):
            refuse(cfg)


def test_tag_and_pixels_are_recorded_where_nothing_else_was_said():
    cfg = _cfg("resnet18", PRETRAINED=True)
    record_timm_weights(cfg)
    assert cfg.MODEL.TIMM.NAME == "resnet18.a1_in1k" and cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53] and cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    before = str(cfg)
    record_timm_weights(cfg)
    assert str(cfg) == before
    for changed in (("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]), ("MODEL.WEIGHTS", "model.pth")):
        cfg = _cfg("resnet18", PRETRAINED=True)
        cfg.merge_from_list(list(changed))
        record_timm_weights(cfg)
        assert cfg.INPUT.FORMAT == "BGR"
    assert timm_weights("resnet18.tv_in1k").name == "resnet18.tv_in1k"


def test_pretrained_weights_and_pixels(monkeypatch, caplog):
    """`timm` is asked for them only where no checkpoint is, and what other pixels mean is said."""
    asked, create = [], timm.create_model

    def offline(name, pretrained=False, **options):
        asked.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    built(_cfg(PRETRAINED=True))
    assert True in asked and "MODEL.PIXEL_MEAN" in caplog.text and "INPUT.FORMAT RGB" in caplog.text
    asked.clear()
    cfg = _cfg(PRETRAINED=True)
    cfg.MODEL.WEIGHTS = "model.pth"
    built(cfg)
    assert asked and True not in asked

    def broken(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(ConnectionError, match=r"no route to host.*MODEL\.TIMM\.PRETRAINED"):
        built(_cfg(PRETRAINED=True))


def test_without_timm_all_else_works():
    program = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["timm"] = None
import panoptic_fpn_ext
from panoptic_fpn_ext.modeling.backbone import TimmBackbone
try:
    TimmBackbone("resnet18")
except ImportError as error:
    assert "pip install timm" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_layers_behind_the_last_map_are_left_out():
    short, long = (TimmBackbone("resnet18", out_features=names) for names in (["res2"], ["res2", "res5"]))
    assert sum(isinstance(m, nn.Conv2d) for m in short.modules()) < sum(
        isinstance(m, nn.Conv2d) for m in long.modules()
    )
