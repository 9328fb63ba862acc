"""Images so flat or small that rounding would leave nothing of them."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.data.nonempty import nonempty
from panoptic_fpn_ext.data.vectorized_resize import vectorized
from panoptic_fpn_ext.panoptic_png import write_panoptic_png

CATEGORIES = PanopticCategories([{"id": 1, "name": "a", "isthing": 1}, {"id": 2, "name": "b", "isthing": 0}])
SIZES = [(1, 3000), (3000, 1), (2, 3000), (3000, 2), (1, 1), (1, 7)]


def _record(folder: Path, size: tuple[int, int], channels: int = 3) -> dict:
    ids = np.ones(size, np.int32)
    ids[size[0] // 2 :, size[1] // 2 :] = 2
    Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2).astype(np.uint8)).save(folder / "image.png")
    write_panoptic_png(str(folder / "map.png"), ids)
    segments = [{"id": i, "category_id": i - 1, "isthing": i == 1} for i in np.unique(ids).tolist()]
    names = {"file_name": str(folder / "image.png"), "pan_seg_file_name": str(folder / "map.png")}
    return {**names, "image_id": 1, "height": size[0], "width": size[1], "segments_info": segments}


@pytest.mark.parametrize("image_format", ["BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize("size", SIZES)
def test_they_are_resized_and_cropped_to_at_least_a_pixel(tmp_path: Path, size: tuple[int, int], image_format: str):
    resize, crop = T.ResizeShortestEdge((800, 800), 1333), T.RandomCrop("relative", (0.3, 0.3))
    area = T.RandomCrop_CategoryAreaConstraint("relative", (0.3, 0.3), 0.75, ignored_category=255)
    for augmentations in ([resize], [vectorized(resize), crop, T.RandomFlip()], [resize, area]):
        mapper = PanopticDatasetMapper(
            True, categories=CATEGORIES, augmentations=augmentations, image_format=image_format
        )
        mapped = mapper(_record(tmp_path, size))
        assert min(mapped["image"].shape) >= 1
        assert mapped["sem_seg"].shape == mapped["image"].shape[1:] == mapped["instances"].image_size


def test_other_images_have_detectron2s_sizes():
    for height, width in [(480, 640), (33, 1000), (1333, 20)]:
        image = np.zeros((height, width, 3), np.uint8)
        for augmentation in (T.ResizeShortestEdge((800, 800), 1333), T.RandomCrop("relative_range", (0.3, 0.3))):
            shapes = []
            for one in (augmentation, nonempty(augmentation)):
                np.random.seed(1)  # noqa: NPY002 - what detectron2 draws from
                shapes.append(one.get_transform(image).apply_image(image).shape)
            assert shapes[0] == shapes[1]


def test_what_other_augmentations_empty_is_named(tmp_path: Path):
    class Nothing(T.Augmentation):
        def get_transform(self, image: np.ndarray) -> T.Transform:
            return T.CropTransform(0, 0, image.shape[1], 0)

    mapper = PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=[Nothing()])
    with pytest.raises(ValueError, match=r"image .*image\.png the augmentations leave nothing"):
        mapper(_record(tmp_path, (4, 4)))
