"""ReLUs in place against ReLUs that make a new map."""

import torch
from accelerated import accelerated
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from panoptic_fpn_ext.modeling.acceleration.activation import rectify_in_place, use_inplace_relu


class _Shared(nn.Module):
    """A ReLU that follows a layer in one place and takes the input in another."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU()
        self.first, self.second = nn.Sequential(nn.Identity(), relu), nn.Sequential(nn.Linear(4, 4), relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.first(x) + self.second(x)


def test_relus_in_place_change_nothing():
    model = nn.Sequential(
        nn.ReLU(),
        Conv2d(4, 4, 1, activation=F.relu),
        nn.Conv2d(4, 4, 1),
        nn.ReLU(),
        Conv2d(4, 4, 1, activation=nn.ReLU6()),
    ).requires_grad_(False)
    x = torch.randn(2, 4, 5, 7)
    before, expected = x.clone(), model(x)
    faster = accelerated(model, rectify_in_place, use_inplace_relu)
    assert torch.equal(faster(x), expected) and torch.equal(x, before)
    assert [module.inplace for module in faster.modules() if hasattr(module, "inplace")] == [False, True, True]
    assert faster[1].activation is F.relu_


def test_a_relu_in_two_places_overwrites_only_where_both_allow_it():
    model, x = _Shared().requires_grad_(False), torch.randn(3, 4)
    assert torch.equal(accelerated(model, rectify_in_place)(x), model(x))
