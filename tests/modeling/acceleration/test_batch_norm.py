"""Batch norms in place and folded against detectron2's."""

import pytest
import torch
from accelerated import accelerated
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from small_models import built, tiny_batch, tiny_cfg, training_step
from torch import nn
from torch.nn import functional as F

from panoptic_fpn_ext.modeling.acceleration.batch_norm import InPlaceFrozenBatchNorm2d, fold_batch_norm


def test_norms_in_place_change_nothing():
    plain, in_place = (built(tiny_cfg("PanopticFPN")) for _ in range(2))
    in_place = accelerated(in_place, InPlaceFrozenBatchNorm2d)
    norms = [m for m in in_place.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(type(m) is InPlaceFrozenBatchNorm2d for m in norms)
    for model in (plain, in_place):
        for norm in model.modules():
            if isinstance(norm, FrozenBatchNorm2d):
                generator = torch.Generator().manual_seed(norm.num_features)
                norm.weight.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
                norm.bias.copy_(torch.rand(norm.num_features, generator=generator))
    one, other = training_step(plain, tiny_batch()), training_step(in_place, tiny_batch())
    assert one[0] == other[0] and all(torch.equal(one[1][k], other[1][k]) for k in one[1])


def _lively(norm: nn.Module) -> nn.Module:
    """Statistics and scales that are not trivial."""
    for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
        if values.is_floating_point():
            values.data.uniform_(0.5, 2.0) if name != "bias" else values.data.normal_()
    return norm.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [FrozenBatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)])
def test_folding_keeps_the_result(norm, bias):
    conv = Conv2d(4, 6, 3, bias=bias, norm=_lively(norm), activation=F.relu).eval()
    x = torch.randn(2, 4, 9, 9)
    expected = conv(x)
    folded = accelerated(conv, fold_batch_norm)
    assert folded.norm is None
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.BatchNorm2d(6, track_running_stats=False)])
def test_norms_that_depend_on_the_image_stay(norm):
    conv = Conv2d(4, 6, 3, norm=norm).eval()
    assert accelerated(conv, fold_batch_norm).norm is not None
