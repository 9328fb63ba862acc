import colorsys

import numpy as np
import pytest
from detectron2.data import transforms as T

from panoptic_fpn_ext.data.color_distortion import ColorDistortion, ColorShift, distort_colors

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)


def _slow(rgb: list[int], shift: ColorShift) -> list[float]:
    """One pixel, in real numbers."""
    values = [min(max(v + shift.brightness, 0), 255) for v in rgb]
    if not shift.contrast_last:
        values = [min(v * shift.contrast, 255) for v in values]
    hue, saturation, value = colorsys.rgb_to_hsv(*values)
    saturation = min(saturation * shift.saturation, 1)
    values = colorsys.hsv_to_rgb((hue + shift.hue / 180) % 1, saturation, value)
    return [min(v * shift.contrast, 255) for v in values] if shift.contrast_last else list(values)


def test_brightness_and_contrast_by_hand():
    gray = np.array([[[0, 100, 250]]], np.uint8)
    assert distort_colors(gray, ColorShift(), "BGR").tolist() == gray.tolist()
    assert distort_colors(gray, ColorShift(brightness=-10), "BGR").tolist() == [[[0, 90, 240]]]
    assert distort_colors(gray, ColorShift(contrast=1.5), "BGR").tolist() == [[[0, 150, 255]]]
    both = ColorShift(brightness=10.5, contrast=0.5)
    assert distort_colors(gray, both, "BGR").tolist() == [[[5, 55, 127]]]


@pytest.mark.parametrize("last", [False, True])
def test_equals_the_slow_twin(last):
    """Up to OpenCV's whole numbers for hue (2°) and saturation."""
    for _ in range(20):
        shift = ColorShift(
            float(RNG.uniform(-32, 32)), float(RNG.uniform(0.5, 1.5)), float(RNG.uniform(0.5, 1.5)),
            int(RNG.integers(-18, 19)), last,
        )  # fmt: skip
        expected = [[_slow(pixel, shift) for pixel in row] for row in IMAGE.tolist()]
        assert np.abs(distort_colors(IMAGE, shift, "RGB") - np.array(expected)).max() < 12


def test_both_channel_orders_and_no_change_in_place():
    shift = ColorShift(20, 1.2, 0.7, 11, True)
    before = IMAGE.copy()
    rgb = distort_colors(IMAGE, shift, "RGB")
    assert np.array_equal(distort_colors(IMAGE[..., ::-1], shift, "BGR"), rgb[..., ::-1])
    assert np.array_equal(IMAGE, before)
    with pytest.raises(ValueError, match=r"COLOR_AUG_SSD needs INPUT\.FORMAT 'BGR' or 'RGB', got 'L'"):
        ColorDistortion("L")


def test_draws():
    """Each part in half of all images, within its range; the same seed draws the same."""
    np.random.seed(0)  # noqa: NPY002 - what detectron2 draws from
    augmentation = ColorDistortion("BGR")
    shifts = [augmentation.get_transform(IMAGE).op.keywords["shift"] for _ in range(400)]
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32), ("contrast", 1, 0.5, 1.5), ("saturation", 1, 0.5, 1.5), ("hue", 0, -18, 18),
    ):  # fmt: skip
        drawn = [value for shift in shifts if (value := getattr(shift, name)) != neutral]
        assert 150 < len(drawn) < 250
        assert low <= min(drawn) < 0.9 * low + 0.1 * high and 0.1 * low + 0.9 * high < max(drawn) <= high
    assert 150 < sum(shift.contrast_last for shift in shifts) < 250
    np.random.seed(0)  # noqa: NPY002
    assert augmentation.get_transform(IMAGE).op.keywords["shift"] == shifts[0]


def test_changes_images_only():
    np.random.seed(1)  # noqa: NPY002
    aug_input = T.AugInput(IMAGE, sem_seg=IMAGE[..., 0])
    transforms = T.AugmentationList([ColorDistortion("RGB")] * 4)(aug_input)
    assert not np.array_equal(aug_input.image, IMAGE)
    assert np.array_equal(aug_input.sem_seg, IMAGE[..., 0])
    assert transforms.apply_box(np.array([[1.0, 2, 3, 4]])).tolist() == [[1, 2, 3, 4]]
