"""The mapper's images against detectron2's, and its targets against a slow twin."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from fvcore.transforms.transform import PadTransform
from oracles import panoptic_targets_plain
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.panoptic_map import check_panoptic_map
from panoptic_fpn_ext.panoptic_png import id2rgb, write_panoptic_png

CATEGORIES = PanopticCategories(
    [{"id": 10 * i + 3, "name": f"c{i}", "isthing": int(i < 3)} for i in range(6)], "things_as_other"
)


class Pad(T.Augmentation):
    """A border on the right and below."""

    def __init__(self, value):
        self.value = value

    def get_transform(self, image):
        h, w = image.shape[:2]
        return PadTransform(0, 0, 9, 5, w, h, seg_pad_value=self.value)


def _sample(folder, segments=12, size=(48, 61), seed=0):
    rng = np.random.default_rng(seed)
    segment_ids = rng.choice(2**24 - 2, segments, replace=False) + 1
    side = int(np.ceil(np.sqrt(segments * 2)))
    coarse = rng.permutation(np.concatenate([segment_ids, rng.choice([0, *segment_ids], side * side - segments)]))
    rows, columns = (np.arange(s) * side // s for s in size)
    ids = coarse.reshape(side, side)[np.ix_(rows, columns)].astype(np.int64)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    write_panoptic_png(str(folder / "panoptic.png"), ids)
    infos = []
    for k, segment_id in enumerate(segment_ids.tolist()):
        kind = CATEGORIES.dataset_ids[k % 6]
        isthing = CATEGORIES.isthing(kind)
        infos.append(
            {
                "id": segment_id,
                "category_id": CATEGORIES.category_id(kind),
                "isthing": isthing,
                "iscrowd": int(isthing and k % 4 == 1),
            }
        )
    names = {"file_name": str(folder / "image.png"), "pan_seg_file_name": str(folder / "panoptic.png")}
    return {**names, "height": size[0], "width": size[1], "image_id": 1, "segments_info": infos}, ids


AUGMENTATIONS = {
    "enlarge": [T.ResizeShortestEdge(97), T.RandomFlip(1.0)],
    "shrink": [T.ResizeShortestEdge(31), T.RandomCrop("absolute", (20, 25))],
    "pad with 255": [T.FixedSizeCrop((70, 90))],
    "pad with 0": [Pad(0)],
    "pad with 7": [Pad(7)],
    "turn": [T.RandomRotation([20, 40])],
}


@pytest.mark.parametrize("segments", [1, 12, 254, 300])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_targets_equal_the_slow_twin(tmp_path, name, segments):
    sample, ids = _sample(tmp_path, segments)
    mapper = PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=AUGMENTATIONS[name])
    np.random.seed(3)  # noqa: NPY002 - what detectron2 draws from
    came = mapper(sample)
    np.random.seed(3)  # noqa: NPY002 - what detectron2 draws from
    transforms = T.AugmentationList(AUGMENTATIONS[name])(T.AugInput(np.zeros((*ids.shape, 3), np.uint8)))
    expected = panoptic_targets_plain(transforms.apply_segmentation(id2rgb(ids)), sample["segments_info"], CATEGORIES)
    assert torch.equal(came["sem_seg"], expected["sem_seg"]) and came["sem_seg"].dtype == torch.int64
    instances = came["instances"]
    assert torch.equal(instances.gt_masks.tensor, expected["masks"])
    assert instances.gt_classes.tolist() == expected["classes"]
    assert torch.equal(instances.gt_boxes.tensor, expected["boxes"])


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_images_equal_detectron2s(tmp_path, image_format):
    sample, _ = _sample(tmp_path)
    augmentations = [T.ResizeShortestEdge((50, 90), sample_style="range"), T.RandomFlip(), T.RandomBrightness(0.5, 2)]
    ours = PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=augmentations, image_format=image_format)
    theirs = DatasetMapper(True, augmentations=augmentations, image_format=image_format)
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002
        came = ours(sample)["image"]
        np.random.seed(seed)  # noqa: NPY002
        assert torch.equal(came, theirs({k: v for k, v in sample.items() if k != "segments_info"})["image"])


def test_the_sample_is_not_changed(tmp_path):
    sample, _ = _sample(tmp_path)
    before = repr(sample)
    PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=[])(sample)
    assert repr(sample) == before


def test_masks_take_the_memory_of_one_map(tmp_path):
    sample, _ = _sample(tmp_path, 100)
    masks = PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=[])(sample)["instances"].gt_masks
    assert len(masks) > 30 and masks.index_map.dtype == torch.uint8 and masks.index_map.shape == (48, 61)


def test_a_map_of_noise_is_checked_too():
    ids = np.random.default_rng(0).integers(1, 4, (20, 20))
    check_panoptic_map(ids, [{"id": i} for i in (1, 2, 3)], "noise.png")
    with pytest.raises(ValueError, match=r"does not list: \[3\]"):
        check_panoptic_map(ids, [{"id": i} for i in (1, 2)], "noise.png")
