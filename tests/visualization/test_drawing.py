"""Overlays and sheets."""

import numpy as np
import pytest
import torch
from detectron2.data import Metadata

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.visualization import contact_sheet, draw_panoptic

METADATA = Metadata(
    **PanopticCategories(
        [
            {"id": 1, "name": "ball", "isthing": 1, "color": [200, 0, 0]},
            {"id": 7, "name": "grass", "isthing": 0, "color": [0, 255, 0]},
        ]
    ).metadata()
)
SEGMENTS = [
    {"id": 1, "isthing": True, "category_id": 0, "score": 0.9},
    {"id": 2, "isthing": False, "category_id": 1},
]


def _map(height: int = 40, width: int = 60) -> torch.Tensor:
    panoptic_seg = torch.zeros(height, width, dtype=torch.int32)
    panoptic_seg[height // 2 :] = 2
    panoptic_seg[2 : height // 4, : width // 4] = 1
    return panoptic_seg


def test_colours_are_those_of_the_categories_and_void_keeps_the_image():
    image = np.full((40, 60, 3), 100, np.uint8)
    drawn = draw_panoptic(image, _map(), SEGMENTS, METADATA)
    assert drawn.shape == (640, 960, 3)
    assert drawn.dtype == np.uint8
    assert drawn[250, 900].tolist() == [100, 100, 100]
    assert np.allclose(drawn[600, 900].astype(int), [50, 178, 50], atol=2)
    red = drawn[50, 10].astype(int)
    assert red[0] > red[1] + 20
    assert red[0] > red[2] + 20


def test_it_is_the_same_each_time_and_changes_nothing():
    image, segments = np.zeros((40, 60, 3), np.uint8), [dict(s) for s in SEGMENTS]
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the global generator is what must stay)
    first = draw_panoptic(image, _map(), segments, METADATA)
    assert np.array_equal(draw_panoptic(image, _map().numpy(), segments, METADATA), first)
    assert segments == SEGMENTS
    assert not image.any()
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_large_images_keep_their_size_and_nothing_may_be_drawn():
    image = np.full((30, 1000, 3), 7, np.uint8)
    assert np.array_equal(draw_panoptic(image, np.zeros((30, 1000), np.int32), [], METADATA), image)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="size"):
        draw_panoptic(np.zeros((40, 61, 3), np.uint8), _map(), SEGMENTS, METADATA)


def test_sheet_has_a_row_each_and_a_title_a_column():
    red, blue = np.zeros((10, 20, 3), np.uint8), np.zeros((50, 100, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = contact_sheet([(red, blue), (blue, red)], ("a", "b"), cell_width=40)
    assert sheet.shape == (36 + 2 * 28, 8 + 2 * 48, 3)
    assert sheet[46, 28].tolist() == sheet[74, 76].tolist() == [255, 0, 0]
    assert sheet[46, 76].tolist() == sheet[74, 28].tolist() == [0, 0, 255]
    assert (sheet[:36] < 100).any()


@pytest.mark.parametrize("rows", [[], [(np.zeros((2, 2, 3), np.uint8),)]])
def test_sheet_needs_full_rows(rows: list):
    with pytest.raises(ValueError, match="2 images"):
        contact_sheet(rows, ("a", "b"))
