"""Training steps on a pretended GPU are those of the CPU."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles import upsampled_cross_entropy_plain
from pretend_gpu import PretendGpu, on_host
from rehearsed_models import (
    Change,
    alternate,
    as_it_is,
    assert_close,
    build_tiny,
    cascade,
    checkpointed,
    split,
    train,
    two_networks,
)

from panoptic_fpn_ext.modeling.losses import upsampled_cross_entropy


@pytest.mark.parametrize(
    ("change", "optimizer", "steps"),
    [
        (as_it_is, "SGD", 1),
        (as_it_is, "AdamW", 2),
        (cascade, "SGD", 1),
        (two_networks, "SGD", 1),
        (split, "SGD", 1),
        (checkpointed, "SGD", 1),
        (alternate, "SGD", 2),
    ],
)
def test_training_is_that_of_the_cpu(change: Change, optimizer: str, steps: int):
    model = build_tiny(change)
    on_cpu = copy.deepcopy(model)
    expected = train(on_cpu, optimizer, accumulate_steps=steps)
    with PretendGpu():
        found = train(model.to("cuda"), optimizer, accumulate_steps=steps)
    assert_close(found["losses"], expected["losses"], rtol=1e-3, atol=1e-4)
    assert_close(found["parameters"], expected["parameters"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_training_in_half_precision(steps: int):
    """Losses are scaled, types fit, and what is learnt is about the same."""
    model = build_tiny()
    expected = train(copy.deepcopy(model), "SGD", accumulate_steps=steps)["losses"]
    with PretendGpu(seen_as="cpu"):
        found = train(model.to("cuda"), "SGD", accumulate_steps=steps, mixed_precision=True)["losses"]
    assert found[0, "loss_sem_seg"] == pytest.approx(expected[0, "loss_sem_seg"], rel=0.05)
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (5, 17)])
def test_the_semantic_loss_by_sums_is_that_by_products(scale: int, size: tuple[int, int]):
    """On a GPU no product is computed, since TF32 might round it."""
    logits = torch.randn(2, 5, *size, dtype=torch.float64)
    targets = torch.randint(0, 5, (2, size[0] * scale, size[1] * scale))
    targets[torch.rand(targets.shape) > 0.8] = 255
    x = logits.clone().requires_grad_()
    expected = upsampled_cross_entropy_plain(x, targets, scale, 255)
    expected.backward()
    with PretendGpu(), _forbidden("mm", "bmm", "addmm", "baddbmm"):
        y = logits.to("cuda").requires_grad_()
        loss = upsampled_cross_entropy(y, targets.to("cuda"), scale, 255)
        loss.backward()
    assert_close((on_host(loss), on_host(y.grad)), (expected.detach(), x.grad))


@contextlib.contextmanager
def _forbidden(*operators: str) -> Iterator[None]:
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func.overloadpacket._qualified_op_name.removeprefix("aten::") not in operators
            return func(*args, **(kwargs or {}))

    with Watch():
        yield
