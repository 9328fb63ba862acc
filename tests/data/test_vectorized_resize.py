"""The vectorised resize of training images against Pillow's, which detectron2 uses."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image
from small_models import tiny_cfg

from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.data.planes import to_planes
from panoptic_fpn_ext.data.vectorized_resize import (
    VectorizedResizeShortestEdge,
    VectorizedResizeTransform,
    vectorized,
)


def _image(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours and noise, uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((width, height), Image.BICUBIC)) for c in coarse.transpose(2, 0, 1)]
    noise = rng.integers(-20, 21, (height, width, channels))
    return np.clip(np.stack(smooth, axis=2) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(90, 110), (61, 77), (20, 31), (1, 1), (61, 300)])
def test_within_one_of_pillow(size):
    image = _image(61, 77)
    image.flags.writeable = False  # as images are that come from files
    theirs = T.ResizeTransform(61, 77, *size).apply_image(image)
    ours = VectorizedResizeTransform(61, 77, *size).apply_image(image)
    assert ours.shape == theirs.shape and ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("width", [1, 77])
@pytest.mark.parametrize("axes", [0, 1, (0, 1)])
def test_flipped_before(axes, width):
    image = np.flip(_image(61, width), axes)
    ours = VectorizedResizeTransform(61, width, 30, 40).apply_image(image)
    theirs = T.ResizeTransform(61, width, 30, 40).apply_image(np.ascontiguousarray(image))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(
    ("image", "interp"),
    [
        (_image(61, 77), Image.NEAREST),
        (_image(61, 77), Image.BICUBIC),
        (_image(61, 77, channels=1), Image.BILINEAR),
        (_image(61, 77)[..., 0], Image.BILINEAR),
        (_image(61, 77).astype(np.float32), Image.BILINEAR),
    ],
)
def test_the_rest_is_detectron2s(image, interp):
    arguments = 61, 77, 40, 50, interp
    assert np.array_equal(
        VectorizedResizeTransform(*arguments).apply_image(image), T.ResizeTransform(*arguments).apply_image(image)
    )
    labels = image[..., 0].astype(np.uint8) if image.ndim == 3 else image
    assert np.array_equal(
        VectorizedResizeTransform(*arguments).apply_segmentation(labels),
        T.ResizeTransform(*arguments).apply_segmentation(labels),
    )


def test_only_the_usual_augmentation_is_swapped():
    original = T.ResizeShortestEdge((30, 40), 99, "range")
    faster = vectorized(original)
    assert isinstance(faster, VectorizedResizeShortestEdge)
    assert vars(faster) == vars(original)
    assert type(faster.get_transform(_image(61, 77))) is VectorizedResizeTransform
    assert isinstance(T.ResizeShortestEdge(0).get_transform(_image(61, 77)), T.NoOpTransform)
    assert isinstance(vectorized(T.ResizeShortestEdge(0)).get_transform(_image(61, 77)), T.NoOpTransform)
    for other in (T.RandomFlip(), T.Resize((9, 9)), faster):
        assert vectorized(other) is other


@pytest.mark.parametrize("is_train", [True, False])
def test_configs_use_it_in_training_only(is_train, street_datasets):
    cfg = tiny_cfg()
    cfg.DATASETS.TRAIN = (street_datasets[0],)
    first = PanopticDatasetMapper(cfg, is_train=is_train).augmentations.augs[0]
    assert isinstance(first, VectorizedResizeShortestEdge) == is_train


@pytest.mark.parametrize("flip", [None, 0, 1])
@pytest.mark.parametrize("is_planar", [True, False])
def test_planes_of_any_layout(is_planar, flip):
    pixels = _image(6, 9)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0) if is_planar else pixels
    if flip is not None:
        image, pixels = np.flip(image, flip), np.flip(pixels, flip)
    planes = to_planes(image)
    assert planes.is_contiguous() and torch.equal(planes, torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    planes.zero_()
    assert image.any()  # a copy
