import copy

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch.nn import functional as F

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.modeling import PanopticFPNSemSegHead
from panoptic_fpn_ext.modeling.jaccard_loss import jaccard_loss

SHAPES = {f"p{i}": ShapeSpec(channels=32, stride=2**i) for i in range(2, 6)}
ARGUMENTS = {"num_classes": 5, "conv_dims": 64, "common_stride": 4, "norm": "GN", "ignore_value": 255}


def _features(height: int = 64, width: int = 96) -> dict[str, torch.Tensor]:
    return {name: torch.randn(2, 32, height // s.stride, width // s.stride) for name, s in SHAPES.items()}


def test_same_parameters_and_outputs_as_detectron2s_head():
    theirs, ours = SemSegFPNHead(SHAPES, **ARGUMENTS), PanopticFPNSemSegHead(SHAPES, **ARGUMENTS)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    features = _features()
    logits, losses = ours.eval()(features)
    assert losses == {}
    # Theirs sums what is upsampled, ours upsamples the sum: another order of the same additions.
    torch.testing.assert_close(logits, theirs.eval()(features)[0], rtol=1e-5, atol=1e-5)
    targets = torch.randint(0, 5, (2, 64, 96))
    targets[0, :9] = 255
    _, expected = theirs.train()(features, targets)
    _, found = ours.train()(features, targets)
    torch.testing.assert_close(found["loss_sem_seg"], expected["loss_sem_seg"], rtol=1e-6, atol=0)


def test_concatenation_is_the_sum_with_shared_weights():
    """A 1×1 convolution on concatenated maps whose blocks are equal is that convolution on their sum."""
    summed = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS).eval()
    joined = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS, fusion="concat").eval()
    state = copy.deepcopy(summed.state_dict())
    state["predictor.weight"] = state["predictor.weight"].repeat(1, 4, 1, 1)
    joined.load_state_dict(state)
    features = _features()
    torch.testing.assert_close(joined.layers(features), summed.layers(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "width", "classes"), [("GN", 32, 54), ("", 64, 133), ("BN", 128, 19)])
def test_widths_norms_and_class_counts(norm, width, classes):
    arguments = {**ARGUMENTS, "norm": norm, "conv_dims": width, "num_classes": classes}
    head = PanopticFPNSemSegHead(SHAPES, **arguments).eval()
    assert head.layers(_features()).shape == (2, classes, 16, 24)


def test_loss_is_weighted_and_averaged_over_labelled_pixels():
    head = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS, loss_weight=0.5)
    logits = torch.randn(2, 5, 4, 6)
    targets = torch.randint(0, 5, (2, 16, 24))
    targets[:, :5] = 255
    full = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    pixels = full.log_softmax(1).gather(1, targets.where(targets != 255, torch.zeros(()).long())[:, None])[:, 0]
    expected = -pixels[targets != 255].mean() * 0.5
    torch.testing.assert_close(head.losses(logits, targets)["loss_sem_seg"], expected)


def test_the_jaccard_loss_is_another_one_of_both_weights():
    logits, targets = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 16, 24))
    plain = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS, loss_weight=0.5).losses(logits, targets)
    both = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS, loss_weight=0.5, jaccard_loss_weight=0.3).losses(logits, targets)
    assert plain.keys() == {"loss_sem_seg"} and both["loss_sem_seg"] == plain["loss_sem_seg"]
    torch.testing.assert_close(both["loss_jaccard"], jaccard_loss(logits, targets, 4, 255) * 0.15)


def test_all_ignored_is_zero_with_zero_gradient():
    head = PanopticFPNSemSegHead(SHAPES, **ARGUMENTS)
    logits = torch.randn(1, 5, 4, 6, requires_grad=True)
    loss = head.losses(logits, torch.full((1, 16, 24), 255))["loss_sem_seg"]
    loss.backward()
    assert loss == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_in_detectron2s_semantic_segmentor(fusion):
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("Misc/semantic_R_50_FPN_1x.yaml"))
    add_panoptic_fpn_ext_config(cfg)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.FUSION = "PanopticFPNSemSegHead", fusion
    model = build_model(cfg)
    assert model.sem_seg_head.predictor.in_channels == (128 if fusion == "sum" else 512)
    with torch.no_grad():
        output = model.eval()([{"image": torch.rand(3, 60, 90), "height": 30, "width": 45}])[0]
    assert output["sem_seg"].shape == (54, 30, 45)
    target = torch.randint(0, 54, (60, 90))
    assert torch.isfinite(model.train()([{"image": torch.rand(3, 60, 90), "sem_seg": target}])["loss_sem_seg"])


def test_bad_arguments():
    with pytest.raises(ValueError, match="FUSION"):
        PanopticFPNSemSegHead(SHAPES, **ARGUMENTS, fusion="product")
    with pytest.raises(ValueError, match="common_stride"):
        PanopticFPNSemSegHead({"p1": ShapeSpec(channels=8, stride=2)}, **ARGUMENTS)
    with pytest.raises(ValueError, match="sem_seg"):
        PanopticFPNSemSegHead(SHAPES, **ARGUMENTS).train()(_features())
