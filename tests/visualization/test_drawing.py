"""Overlays and sheets."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.visualization import contact_sheet, draw_panoptic, save_image

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


def test_void_is_hatched_on_request_and_colours_need_not_vary():
    image = np.full((640, 960, 3), 100, np.uint8)
    seg = np.zeros((640, 960), np.int32)
    seg[:, 400:680], seg[:, 680:] = 3, 1
    segments = [SEGMENTS[0], {**SEGMENTS[0], "id": 3}]
    plain, hatched = (draw_panoptic(image, seg, segments, METADATA, hatch_void=flag) for flag in (False, True))
    assert set(np.unique(plain[300, :390])) == {100}
    assert set(np.unique(hatched[300, :390])) == {50, 150}
    assert (plain[:, 410:] == hatched[:, 410:]).all()
    assert (plain[9, 500] != plain[9, 800]).any()
    steady = draw_panoptic(image, seg, segments, METADATA, vary=False)
    assert (steady[9, 500] == steady[9, 800]).all()


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


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (2, 3000), (3000, 1), (40, 3000), (1500, 60), (1100, 1700)])
def test_any_size(size: tuple[int, int]):
    image = np.full((*size, 3), 90, np.uint8)
    drawn = draw_panoptic(image[:, :, ::-1], np.full(size, 2, np.int32), SEGMENTS, METADATA)
    scale = max(1.0, 960 / max(size))
    assert drawn.shape == (round(size[0] * scale), round(size[1] * scale), 3)
    on_dark = (drawn < 60).all(axis=2).any()
    assert on_dark == (min(drawn.shape[:2]) > 12)  # there is a label, unless nobody could read it


def test_text_grows_with_the_image_and_small_segments_stay_visible():
    heights = []
    for side in (960, 2880):
        segment_map = np.zeros((side, side), np.int32)
        segment_map[side // 2 : side // 2 + 4, side // 2 : side // 2 + 4] = 1
        drawn = draw_panoptic(np.full((side, side, 3), 200, np.uint8), segment_map, SEGMENTS[:1], METADATA)
        rows = np.flatnonzero((drawn < 80).all(axis=2).any(axis=1))
        heights.append(len(rows))
        assert rows.max() <= side // 2 + 4 or rows.min() >= side // 2 + 4
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.2)


def test_many_segments_and_unknown_colours():
    segment_map = np.arange(1, 301, dtype=np.int32).reshape(15, 20)
    segments = [{"id": int(i), "isthing": bool(i % 2), "category_id": 0} for i in segment_map.flat]
    metadata = Metadata(thing_classes=["a"], stuff_classes=["b"])
    drawn = draw_panoptic(np.zeros((15, 20, 3), np.uint8), segment_map, segments, metadata)
    assert len(np.unique(drawn[24::48, 8::48].reshape(-1, 3), axis=0)) > 100


def test_it_needs_little_more_memory_than_what_it_draws():
    height, width = 2000, 3000
    segment_map = np.ones((height, width), np.int32)
    segment_map[height // 2 :] = 2
    image = np.zeros((height, width, 3), np.uint8)
    draw_panoptic(image[:9], segment_map[:9], SEGMENTS, METADATA)  # fonts are loaded once
    tracemalloc.start()
    try:
        draw_panoptic(image, segment_map, SEGMENTS, METADATA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The overlay has 3 bytes a pixel; detectron2's visualiser takes 200 in all.
    assert peak / (height * width) < 9


def test_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    save_image(path, np.full((4, 5, 3), 7, np.uint8))
    before = path.read_bytes()
    assert Image.open(path).size == (5, 4)

    def interrupted(image: Image.Image, file: str, **_: object) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_image(path, np.zeros((4, 5, 3), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match="suffix"):
        save_image(tmp_path / "a.xyz", np.zeros((4, 5, 3), np.uint8))
