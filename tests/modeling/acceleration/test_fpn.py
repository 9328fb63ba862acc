"""The pyramid without upsampled maps against detectron2's."""

import pytest
import torch
from accelerated import accelerated
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from panoptic_fpn_ext.modeling.acceleration.fpn import InPlaceFPN

STRIDES = {"res3": 8, "res4": 16, "res5": 32}


class _Pooled(Backbone):
    """The image at each stride."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: nn.functional.avg_pool2d(x, stride) for name, stride in STRIDES.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=3, stride=stride) for name, stride in STRIDES.items()}


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@pytest.mark.parametrize("top_block", [None, LastLevelMaxPool(), LastLevelP6P7(3, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_same_as_detectron2(layout, top_block, fuse_type):
    fpn = FPN(_Pooled(), list(STRIDES), 8, top_block=top_block, fuse_type=fuse_type).eval()
    image = torch.randn(2, 3, 64, 96).contiguous(memory_format=layout)
    expected = fpn(image)
    found = accelerated(fpn, InPlaceFPN)(image)
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # sums in another order
