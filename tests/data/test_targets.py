import numpy as np
import pytest
import torch

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data.targets import panoptic_targets
from panoptic_fpn_ext.panoptic_map import check_panoptic_map, relabel

CATEGORIES = [
    {"id": 1, "name": "car", "isthing": 1},
    {"id": 5, "name": "road", "isthing": 0},
    {"id": 9, "name": "person", "isthing": 1},
]
IDS = np.array(
    [
        [11, 11, 70, 70, 0],
        [11, 11, 70, 12, 0],
        [70, 70, 70, 12, 99],
    ]
)
CAR = {"id": 11, "category_id": 0, "isthing": True, "iscrowd": 0}
PERSON = {"id": 12, "category_id": 1, "isthing": True}
ROAD = {"id": 70, "category_id": 1, "isthing": False}
CROWD = {"id": 99, "category_id": 1, "isthing": True, "iscrowd": 1}


def test_things_as_other():
    targets = panoptic_targets(IDS, [CAR, PERSON, ROAD, CROWD], PanopticCategories(CATEGORIES))
    assert targets.sem_seg.tolist() == [[0, 0, 1, 1, 255], [0, 0, 1, 0, 255], [1, 1, 1, 0, 0]]
    assert targets.instances.gt_classes.tolist() == [0, 1]
    assert targets.instances.gt_boxes.tensor.tolist() == [[0, 0, 2, 2], [3, 1, 4, 3]]
    assert torch.equal(targets.instances.gt_masks.tensor, torch.from_numpy(np.stack([IDS == 11, IDS == 12])))


def test_all_classes():
    road = {**ROAD, "category_id": 1}
    targets = panoptic_targets(IDS, [CAR, PERSON, road, CROWD], PanopticCategories(CATEGORIES, "all_classes"))
    assert targets.sem_seg.tolist() == [[0, 0, 1, 1, 255], [0, 0, 1, 2, 255], [1, 1, 1, 2, 2]]


def test_padding_and_segments_that_a_crop_cut_away():
    ids = np.array([[70, 256**3 - 1]])  # white padding of an RGB image
    targets = panoptic_targets(ids, [CAR, ROAD], PanopticCategories(CATEGORIES))
    assert targets.sem_seg.tolist() == [[1, 255]]
    assert len(targets.instances) == 0
    assert len(targets.instances.gt_masks) == 0
    assert targets.instances.gt_boxes.tensor.shape == (0, 4)


def test_all_void():
    targets = panoptic_targets(np.zeros((2, 3), dtype=np.int32), [], PanopticCategories(CATEGORIES))
    assert (targets.sem_seg == 255).all()
    assert len(targets.instances) == 0


def test_check_panoptic_map():
    check_panoptic_map(IDS, [CAR, PERSON, ROAD, CROWD], "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*does not list: \[99\]"):
        check_panoptic_map(IDS, [CAR, PERSON, ROAD], "a.png")
    with pytest.raises(ValueError, match=r"without a pixel: \[3\]"):
        check_panoptic_map(IDS, [CAR, PERSON, ROAD, CROWD, {"id": 3}], "a.png")
    with pytest.raises(ValueError, match=r"more than once: \[11\]"):
        check_panoptic_map(IDS, [CAR, CAR, PERSON, ROAD, CROWD], "a.png")


def test_relabel_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        known = rng.choice(40, size=rng.integers(0, 12), replace=False)
        values = rng.integers(0, 9, size=len(known))
        ids = rng.integers(0, 40, size=(5, 7))
        lookup = dict(zip(known.tolist(), values.tolist(), strict=True))
        expected = [[lookup.get(i, -7) for i in row] for row in ids.tolist()]
        assert relabel(ids, known.tolist(), values.tolist(), -7).tolist() == expected
