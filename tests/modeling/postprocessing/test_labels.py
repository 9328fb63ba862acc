"""Labels where they are needed, without logits at output size."""

import pytest
import torch
from oracles import upsample_plain
from torch.nn import functional as F

from panoptic_fpn_ext.modeling.postprocessing import label_free_pixels, labels


def _assert_best(found: torch.Tensor, logits: torch.Tensor, free: torch.Tensor) -> None:
    """Labels of free pixels have the highest logit, (C, H, W), up to rounding; the others say C."""
    assert (found[~free] == len(logits)).all()
    chosen = logits.gather(0, found.long().clamp(max=len(logits) - 1)[None])[0]
    assert (logits.max(dim=0).values - chosen)[free].max() < 1e-4


@pytest.mark.parametrize("output_size", [(13, 19), (32, 40), (200, 150)])
@pytest.mark.parametrize("num_classes", [1, 2, 30, 253, 254, 255, 300])
@pytest.mark.parametrize("smooth", [True, False])
def test_best_class_of_free_pixels(output_size, num_classes, smooth):
    logits = torch.randn(num_classes, 8, 10) * 10
    if smooth:
        logits = F.interpolate(logits[None, :, :3, :3], size=(8, 10), mode="bicubic")[0]
    free = torch.rand(output_size) > 0.2
    found = label_free_pixels(logits, 4, (29, 38), free)
    assert found.dtype == (torch.uint8 if num_classes <= 254 else torch.int16)
    _assert_best(found, upsample_plain(logits, 4, (29, 38), output_size), free)


def test_tiles_and_strips_change_nothing(monkeypatch):
    logits, free = torch.randn(6, 9, 11), torch.rand(50, 60) > 0.2
    whole = label_free_pixels(logits, 4, (33, 41), free)
    monkeypatch.setattr(labels, "_STRIP_PIXELS", 130)
    monkeypatch.setattr(labels, "_TILE_LOGITS", 40)
    assert torch.equal(label_free_pixels(logits, 4, (33, 41), free), whole)


def test_equal_logits_everywhere():
    free = torch.ones(20, 30, dtype=torch.bool)
    assert not label_free_pixels(torch.zeros(5, 4, 6), 4, (16, 24), free).any()


def test_logits_are_computed_only_where_neighbours_disagree(monkeypatch):
    asked = []
    best_class = labels._best_class
    monkeypatch.setattr(labels, "_best_class", lambda *args: asked.append(len(args[2])) or best_class(*args))
    logits = torch.zeros(2, 16, 16)
    logits[1, :, 8:] = 1
    label_free_pixels(logits, 4, (64, 64), torch.ones(64, 64, dtype=torch.bool))
    assert sum(asked) == 64 * 4  # between the centres of columns 7 and 8
