import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from panoptic_fpn_ext import index_masks
from panoptic_fpn_ext.index_masks import IndexMasks
from panoptic_fpn_ext.panoptic_map import run_starts, segment_index_map


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(0)
    index_map = torch.zeros(37, 41, dtype=torch.uint8)
    index_map[3:20, 4:30] = 1
    index_map[10:30, 20:41] = 2
    index_map[torch.rand(37, 41, generator=generator) > 0.9] = 3
    index_map[36, 40] = 4
    return IndexMasks(index_map, torch.tensor([1, 2, 3, 4, 9]))  # 9 has no pixel


def test_they_are_bit_masks(masks):
    assert isinstance(masks, BitMasks) and len(masks) == 5 and masks.image_size == (37, 41)
    assert torch.equal(masks.tensor[1], masks.index_map == 2)
    assert all(torch.equal(a, b) for a, b in zip(masks, BitMasks(masks.tensor), strict=True))
    assert masks.device.type == "cpu" and len(masks.to("cpu")) == 5


@pytest.mark.parametrize(
    "item",
    [
        0,
        -1,
        slice(1, 3),
        torch.tensor([2, 0, 2]),
        torch.tensor([True, False, False, True, False]),
        torch.zeros(0, dtype=torch.int64),
    ],
    ids=str,
)
def test_indexing_equals_bit_masks(masks, item):
    assert torch.equal(masks[item].tensor, BitMasks(masks.tensor)[item].tensor)
    assert masks[item].index_map is masks.index_map


def test_boxes_and_emptiness_equal_bit_masks(masks):
    assert torch.equal(masks.get_bounding_boxes().tensor, BitMasks(masks.tensor).get_bounding_boxes().tensor)
    assert torch.equal(masks.nonempty(), BitMasks(masks.tensor).nonempty())


@pytest.mark.parametrize("at_once", [1, 4000, 2**23])
def test_crops_equal_bit_masks_bit_for_bit(masks, monkeypatch, at_once):
    monkeypatch.setattr(index_masks, "_PIXELS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 5, (60,), generator=generator)
    corners = torch.rand(60, 4, generator=generator) * 50 - 5
    boxes = torch.cat(
        [torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], dim=1
    )
    chosen = masks[rows]
    assert torch.equal(chosen.crop_and_resize(boxes, 28), BitMasks(chosen.tensor).crop_and_resize(boxes, 28))


def test_no_masks_at_all(masks):
    none = masks[torch.zeros(0, dtype=torch.int64)]
    assert none.crop_and_resize(torch.zeros(0, 4), 14).shape == (0, 14, 14)
    assert none.get_bounding_boxes().tensor.shape == (0, 4) and none.nonempty().shape == (0,)
    assert IndexMasks(torch.zeros(0, 5, dtype=torch.uint8), torch.tensor([1])).get_bounding_boxes().tensor.tolist() == [
        [0, 0, 0, 0]
    ]


def test_instances_take_them(masks):
    instances = Instances((37, 41), gt_masks=masks, gt_boxes=Boxes(torch.zeros(5, 4)))
    doubled = Instances.cat([instances[:2], instances[torch.tensor([3])]])
    assert isinstance(doubled.gt_masks, IndexMasks) and doubled.gt_masks.indices.tolist() == [1, 2, 4]
    other = IndexMasks(masks.index_map.clone(), torch.tensor([2]))
    mixed = BitMasks.cat([BitMasks(masks.tensor), other])
    assert torch.equal(IndexMasks.cat([masks, other]).tensor, mixed.tensor)


@pytest.mark.parametrize("count", [0, 3, 254, 255, 700])
def test_index_map_of_many_segments(count):
    rng = np.random.default_rng(count)
    segment_ids = rng.choice(2**24 - 1, count, replace=False) + 1
    ids = rng.choice([0, 7, *segment_ids], (20, 30))
    indices = segment_index_map(ids, segment_ids.tolist())
    assert indices.dtype == (np.uint8 if count <= 254 else np.int32)
    expected = np.zeros(ids.shape, int)
    for k, segment_id in enumerate(segment_ids, start=1):
        expected[ids == segment_id] = k
    assert np.array_equal(indices, expected)


def test_runs():
    assert run_starts(np.array([[4, 4, 2], [2, 2, 4]])).tolist() == [0, 2, 5]
    assert run_starts(np.zeros((0, 3), int)).tolist() == []
