"""Scale, crop and colours of the Cityscapes recipes: images and targets stay together."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from PIL import Image

from panoptic_fpn_ext.categories import ALL_CLASSES, PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.data.targets import sem_seg_target
from panoptic_fpn_ext.panoptic_png import id2rgb, rgb2id, write_panoptic_png

CATEGORIES = PanopticCategories([{"id": 5 + i, "name": f"c{i}", "isthing": int(i > 2)} for i in range(5)], ALL_CLASSES)
A, B, C, THING = 1, 2, 3, 70000


def _record(folder, ids: np.ndarray) -> dict:
    """An image that shows its own map: the colour of a pixel is its segment's id."""
    Image.fromarray(id2rgb(ids)).save(folder / "image.png")
    write_panoptic_png(str(folder / "map.png"), ids)
    segments = [{"id": A, "category_id": 0}, {"id": B, "category_id": 1}, {"id": C, "category_id": 2}]
    segments = [{**s, "isthing": False} for s in segments] + [{"id": THING, "category_id": 1, "isthing": True}]
    names = {"file_name": str(folder / "image.png"), "pan_seg_file_name": str(folder / "map.png")}
    present = [s for s in segments if (ids == s["id"]).any()]
    return {**names, "height": ids.shape[0], "width": ids.shape[1], "image_id": 1, "segments_info": present}


def _mapper(*augmentations: T.Augmentation) -> PanopticDatasetMapper:
    return PanopticDatasetMapper(True, categories=CATEGORIES, augmentations=list(augmentations), image_format="RGB")


def _limited(limit: float) -> T.Augmentation:
    return T.RandomCrop_CategoryAreaConstraint("absolute", (16, 16), limit, ignored_category=255)


def _seed(seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - what detectron2 draws from


@pytest.mark.parametrize("limit", [0.75, 1.0])
def test_scaled_and_cropped_images_fit_their_targets(tmp_path, limit):
    rng = np.random.default_rng(0)
    ids = np.kron(rng.choice([0, A, B, C, THING], (6, 9), p=[0.2, 0.3, 0.1, 0.2, 0.2]), np.ones((8, 8), int))
    record = _record(tmp_path, ids)
    scale = T.ResizeShortestEdge((24, 96), 4096, "range", interp=Image.NEAREST)
    mapper = _mapper(scale, _limited(limit), T.RandomFlip())
    for seed in range(12):
        _seed(seed)
        mapped = mapper(record)
        seen = rgb2id(np.ascontiguousarray(mapped["image"].permute(1, 2, 0).numpy()))
        assert seen.shape == (16, 16)
        assert torch.equal(mapped["sem_seg"], sem_seg_target(seen, record["segments_info"], CATEGORIES))
        masks = mapped["instances"].gt_masks.tensor.numpy()
        assert np.array_equal(masks.any(axis=0), seen == THING)


def _too_full(mapper: PanopticDatasetMapper, record: dict) -> int:
    """How many of 40 crops have a class in three quarters of their labelled part; ten draws do not always find another
    one.
    """
    result = 0
    for seed in range(40):
        _seed(seed)
        labels = mapper(record)["sem_seg"].numpy()
        counts = np.bincount(labels[labels != 255])
        result += counts.max() >= 0.75 * counts.sum()
    return result


def test_no_class_fills_more_than_its_share(tmp_path):
    ids = np.full((40, 60), A)
    ids[:, 30:45], ids[:, 45:] = B, THING
    record = _record(tmp_path, ids)
    assert _too_full(_mapper(_limited(1.0)), record) > 15
    assert _too_full(_mapper(_limited(0.75)), record) <= 1


def test_void_is_no_class(tmp_path):
    """Two classes side by side in a sea of void: the first crop will do, though void fills most of it."""
    ids = np.zeros((20, 20), int)
    ids[8, :] = np.arange(20) % 2 + 1
    record, images = _record(tmp_path, ids), []
    for limit in (0.75, 1.0):
        _seed(0)
        images.append([_mapper(_limited(limit))(record)["image"] for _ in range(10)])
    assert all(torch.equal(limited, first) for limited, first in zip(*images, strict=True))


def test_prepared_semantic_files_are_looked_at(tmp_path):
    ids = np.full((16, 40), A)
    record = _record(tmp_path, ids)
    labels = np.zeros((16, 40), np.uint8)
    labels[:, 20:] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    separated = {k: v for k, v in record.items() if k != "segments_info"} | {
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "annotations": [],
    }
    assert _too_full(_mapper(_limited(0.75)), separated) <= 1
    del separated["sem_seg_file_name"]
    with pytest.raises(ValueError, match=r"image\.png has no semantic ground truth.*SINGLE_CATEGORY_MAX_AREA"):
        _mapper(_limited(0.75))(separated)


def test_keys(tiny_cfg):
    """Each key changes what comes out of the mapper, and inference knows neither."""
    record = DatasetCatalog.get(tiny_cfg.DATASETS.TRAIN[0])[0]
    crop = tiny_cfg.INPUT.CROP
    crop.ENABLED, crop.TYPE, crop.SIZE = True, "absolute", [24, 32]

    def images() -> list[torch.Tensor]:
        mapper = PanopticDatasetMapper(tiny_cfg, is_train=True)
        result = []
        for seed in range(8):
            _seed(seed)
            result.append(mapper(record)["image"])
        return result

    def differ(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
        return any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))

    plain = images()
    crop.SINGLE_CATEGORY_MAX_AREA = 0.3
    assert differ(plain, images())
    crop.SINGLE_CATEGORY_MAX_AREA = 1.0
    assert not differ(plain, images())
    tiny_cfg.INPUT.COLOR_AUG_SSD = True
    assert differ(plain, images())
    inference = PanopticDatasetMapper(tiny_cfg, is_train=False)
    assert [type(a) for a in inference.augmentations.augs] == [NonemptyResizeShortestEdge]
