"""What the graph computes in a way of its own: resizing, taps of the masks, thresholds in float32."""

import numpy as np
import pytest
import torch

from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.export.combine import _composed_taps
from panoptic_fpn_ext.export.detector import least_float32
from panoptic_fpn_ext.export.resize import network_input_size, resize_image
from panoptic_fpn_ext.modeling.postprocessing import composed_taps


@pytest.mark.parametrize(
    "size",
    [
        (64, 64),
        (1, 1),
        (300, 1),
        (301, 77),
        (200, 100),
        (203, 101),
        (31, 200),
        (200, 150),
        (97, 33),
        (96, 64),
        (333, 500),
    ],
)
@pytest.mark.parametrize("resize", [(64, 96), (240, 384), (0, 0)])
def test_resizing_gives_pillows_pixels(size, resize):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = NonemptyResizeShortestEdge([resize[0]] * 2, resize[1] or 1333).get_transform(image).apply_image(image)
    height, width = network_input_size(torch.tensor(size[0]), torch.tensor(size[1]), *resize)
    found = resize_image(torch.from_numpy(image), height, width).numpy()
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("length", "stride", "crop", "out"), [(8, 4, 30, 47), (16, 4, 64, 9), (1, 4, 1, 5), (20, 1, 17, 33)]
)
def test_taps_are_those_of_the_eager_model(length, stride, crop, out):
    def matrix(index, weight):
        return torch.zeros(out, length).scatter_add(1, index, weight)

    found = matrix(*_composed_taps(torch.tensor(length), stride, torch.tensor(crop), torch.tensor(out)))
    torch.testing.assert_close(found, matrix(*composed_taps(length, stride, crop, out, "cpu")), rtol=0, atol=1e-5)


def test_a_threshold_in_float32():
    for threshold in (0.5, 0.1, 0.3, 0.7, 0.0):
        least = least_float32(threshold)
        assert least >= threshold > float(np.nextafter(np.float32(least), np.float32(-1)))
