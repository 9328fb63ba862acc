"""Detections and their masks at output size."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from oracles import paste_plain, postprocess_plain

from panoptic_fpn_ext.modeling.postprocessing import masks as masks_module
from panoptic_fpn_ext.modeling.postprocessing import paste_masks, postprocess_instances


def _instances(n: int, size: tuple[int, int] = (40, 50)) -> Instances:
    corner = torch.rand(n, 2) * 60 - 10
    return Instances(
        size,
        pred_boxes=Boxes(torch.cat([corner, corner + torch.rand(n, 2) * 30], dim=1)),
        scores=torch.rand(n),
        pred_classes=torch.randint(0, 9, (n,)),
        pred_masks=torch.rand(n, 1, 28, 28),
    )


@pytest.mark.parametrize("output_size", [(40, 50), (97, 61), (13, 200), (1, 1)])
@pytest.mark.parametrize("n", [0, 1, 30])
def test_same_as_detectron2(n, output_size):
    instances = _instances(n)
    boxes_before = instances.pred_boxes.tensor.clone()
    theirs = postprocess_plain(instances, output_size)
    ours = postprocess_instances(instances, output_size)
    assert ours.image_size == theirs.image_size
    assert ours.get_fields().keys() == theirs.get_fields().keys()
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_masks, theirs.pred_masks)
    assert ours.pred_masks.dtype == torch.bool
    assert torch.equal(instances.pred_boxes.tensor, boxes_before)


def test_keypoints_are_scaled_on_a_copy_and_masks_may_be_absent():
    instances = _instances(3, size=(10, 10))
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 1, 9, 9]]).repeat(3, 1))
    instances.remove("pred_masks")
    instances.pred_keypoints = torch.ones(3, 17, 3)
    result = postprocess_instances(instances, (20, 30))
    assert result.pred_keypoints[0, 0].tolist() == [3, 2, 1]
    assert (instances.pred_keypoints == 1).all()
    assert not result.has("pred_masks")


# Centres on the edge of a box have a probability of exactly 0.5; a thin box has no centre at all.
BOXES = [[0, 0, 28, 28], [3.5, 3.5, 9.5, 9.5], [0, 0, 64, 48], [10, 10, 10.01, 40], [63.9, 47.9, 64, 48], [7, 5, 8, 6]]


KINDS = {
    "ones": torch.ones,
    "random": torch.rand,
    "binary": lambda *shape: torch.rand(shape).round(),
    "halves": lambda *shape: torch.full(shape, 0.5),
    "not finite": lambda *shape: torch.rand(shape).masked_fill_(torch.rand(shape) < 0.01, float("nan")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_pixels_as_detectron2(kind):
    boxes, masks = torch.tensor(BOXES), KINDS[kind](len(BOXES), 28, 28)
    assert torch.equal(paste_masks(masks, boxes, (48, 64)), paste_plain(masks, boxes, (48, 64)))


@pytest.mark.parametrize("tile", [1, 100, 2000, 10**6])
@pytest.mark.parametrize("kind", ["random", "halves"])
def test_tiles_change_nothing(monkeypatch, kind, tile):
    corner = torch.rand(40, 2) * torch.tensor([64, 48])
    far = torch.minimum(corner + torch.rand(40, 2) * 40 + 0.01, torch.tensor([64.0, 48.0]))
    boxes = torch.cat([torch.tensor(BOXES), torch.cat([corner, far], dim=1)])
    masks = KINDS[kind](len(boxes), 28, 28)
    monkeypatch.setattr(masks_module, "_TILE_PIXELS", tile)
    assert torch.equal(paste_masks(masks, boxes, (48, 64)), paste_plain(masks, boxes, (48, 64)))


def test_products_of_lower_precision_are_not_used(monkeypatch):
    monkeypatch.setattr(masks_module, "multiplies_exactly", lambda: False)
    monkeypatch.setattr(masks_module, "_PasteOnCPU", None)
    masks, boxes = torch.rand(len(BOXES), 28, 28), torch.tensor(BOXES)
    assert torch.equal(paste_masks(masks, boxes, (48, 64)), paste_plain(masks, boxes, (48, 64)))


def test_masks_with_a_gradient():
    masks, boxes = torch.rand(len(BOXES), 28, 28), torch.tensor(BOXES)
    assert torch.equal(paste_masks(masks.requires_grad_(), boxes, (48, 64)), paste_plain(masks, boxes, (48, 64)))


def test_half_precision_masks_are_sampled_in_float32():
    masks, boxes = torch.rand(len(BOXES), 28, 28).half(), torch.tensor(BOXES)
    assert torch.equal(paste_masks(masks, boxes, (48, 64)), paste_plain(masks.float(), boxes, (48, 64)))
