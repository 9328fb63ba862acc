"""detectron2's deformable layers on a CPU, with its compiled ``_C`` and without."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from config_files import COCO, load
from detectron2.layers import DeformConv, ModulatedDeformConv
from detectron2.modeling.backbone.resnet import DeformBottleneckBlock
from oracles import deform_conv_plain
from small_models import built, tiny_batch, training_step

GROUPS = [(1, 1), (2, 1), (1, 2), (2, 2)]


def _inputs(layer, size=(6, 7)):
    """Input, offsets and weights of taps, float64."""
    kernel, groups = layer.kernel_size[0] * layer.kernel_size[1], layer.deformable_groups
    usual = torch.nn.Conv2d(1, 1, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    h, w = usual(torch.zeros(1, 1, *size)).shape[-2:]
    x = torch.randn(2, layer.in_channels, *size, dtype=torch.float64)
    offset = 1.5 * torch.randn(2, 2 * kernel * groups, h, w, dtype=torch.float64)
    mask = torch.rand(2, kernel * groups, h, w, dtype=torch.float64)
    return [t.requires_grad_() for t in (x, offset, mask)]


@pytest.mark.parametrize(("groups", "deformable_groups"), GROUPS)
@pytest.mark.parametrize("stride", [1, 2])
def test_plain_and_modulated_are_sums_of_moved_taps(groups, deformable_groups, stride):
    torch.manual_seed(0)
    options = {"stride": stride, "padding": 2, "dilation": 2, "groups": groups, "deformable_groups": deformable_groups}
    plain, modulated = DeformConv(4, 6, 3, **options).double(), ModulatedDeformConv(4, 6, 3, **options).double()
    torch.nn.init.normal_(modulated.bias)
    x, offset, mask = _inputs(plain)
    expected = deform_conv_plain(x, offset, torch.ones_like(mask), plain.weight, stride, 2, 2)
    torch.testing.assert_close(plain(x, offset), expected)
    expected = deform_conv_plain(x, offset, mask, modulated.weight, stride, 2, 2) + modulated.bias[:, None, None]
    torch.testing.assert_close(modulated(x, offset, mask), expected)


def test_gradients():
    torch.manual_seed(0)
    layer = ModulatedDeformConv(2, 2, 3, padding=1, deformable_groups=2).double()
    assert torch.autograd.gradcheck(layer, _inputs(layer, (3, 4)), eps=1e-6, atol=1e-6)
    layer = DeformConv(2, 2, 3, padding=1).double()
    assert torch.autograd.gradcheck(layer, _inputs(layer, (3, 4))[:2], eps=1e-6, atol=1e-6)


def test_empty_batches_copies_and_pickles():
    layer = DeformConv(2, 4, 3, stride=2, padding=1)
    assert layer(torch.zeros(0, 2, 8, 8), torch.zeros(0, 18, 4, 4)).shape == (0, 4, 4, 4)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is DeformConv
        torch.testing.assert_close(other.weight, layer.weight, rtol=0, atol=0)


def test_the_published_recipe_trains_with_deformable_convolutions():
    """Two steps of its parts, narrow: every block that is meant to be deformable is, and its offsets learn."""
    cfg = load(f"{COCO}/panoptic_fpn_R_101_dconv_cascade_gn_3x.yaml")
    model = cfg.MODEL
    model.DEVICE, model.WEIGHTS, model.RESNETS.DEPTH, model.RESNETS.WIDTH_PER_GROUP = "cpu", "", 50, 32
    model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.RES2_OUT_CHANNELS, model.FPN.OUT_CHANNELS = 32, 32, 32
    model.ROI_BOX_HEAD.CONV_DIM = model.ROI_BOX_HEAD.FC_DIM = model.ROI_MASK_HEAD.CONV_DIM = 32
    model.ROI_HEADS.NUM_CLASSES, model.SEM_SEG_HEAD.NUM_CLASSES, model.SEM_SEG_HEAD.CONVS_DIM = 4, 6, 32
    network = built(cfg)
    blocks = [m for m in network.modules() if isinstance(m, DeformBottleneckBlock)]
    assert len(blocks) == 4 + 6 + 3
    for _ in range(2):
        losses, gradients = training_step(network, tiny_batch())
        assert all(loss.isfinite() for loss in losses.values())
    assert all(block.conv2_offset.weight.grad.abs().sum() > 0 for block in blocks)
    assert {name for name in gradients if "conv2_offset" in name}


def test_a_compiled_extension_keeps_the_gpu():
    """A stand-in for ``_C``: detectron2's operators are left to GPUs, and a CPU takes torchvision's."""
    program = """
import sys, types, warnings
warnings.simplefilter("ignore")
sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")
from detectron2.layers import DeformConv, ModulatedDeformConv, deform_conv
theirs = deform_conv._DeformConv.apply, deform_conv._ModulatedDeformConv.apply
layer = DeformConv
import panoptic_fpn_ext, torch
assert deform_conv.DeformConv is layer and DeformConv(2, 2, 3).weight.shape == (2, 2, 3, 3)
x, offset, mask = (torch.rand(1, c, 5, 5, requires_grad=True) for c in (4, 36, 18))
module = ModulatedDeformConv(4, 2, 3, padding=1, groups=2, deformable_groups=2)
module(x, offset, mask).sum().backward()
assert x.grad.abs().sum() > 0 and offset.grad.abs().sum() > 0 and mask.grad.abs().sum() > 0
called = []
class OnGPU: is_cuda = True
for name in ("_DeformConv", "_ModulatedDeformConv"):
    setattr(getattr(deform_conv, name), "forward", staticmethod(lambda ctx, *args: called.append(args)))
deform_conv.deform_conv(OnGPU(), None, None), deform_conv.modulated_deform_conv(OnGPU(), None, None, None)
assert len(called) == 2
"""
    subprocess.run([sys.executable, "-c", program], check=True)
