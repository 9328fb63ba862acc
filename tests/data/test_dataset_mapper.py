import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import PolygonMasks
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.panoptic_png import read_panoptic_png


def _mapper(dataset: str, augmentations: list, is_train: bool = True) -> PanopticDatasetMapper:
    categories = PanopticCategories.from_metadata(MetadataCatalog.get(dataset))
    return PanopticDatasetMapper(is_train, categories=categories, augmentations=augmentations)


def test_targets_without_transforms_are_the_ground_truth(street_datasets):
    name = street_datasets[0]
    categories = PanopticCategories.from_metadata(MetadataCatalog.get(name))
    for record in DatasetCatalog.get(name):
        mapped = _mapper(name, [])(record)
        ids = read_panoptic_png(record["pan_seg_file_name"])
        countable = [s for s in record["segments_info"] if s["isthing"] and not s["iscrowd"]]
        assert mapped["image"].shape == (3, 64, 96)
        assert mapped["instances"].gt_classes.tolist() == [s["category_id"] for s in countable]
        for segment, mask, box in zip(
            countable, mapped["instances"].gt_masks.tensor, mapped["instances"].gt_boxes.tensor.tolist(), strict=True
        ):
            assert np.array_equal(mask, ids == segment["id"])
            x, y, w, h = segment["bbox"]
            assert box == [x, y, x + w, y + h]
        for segment in record["segments_info"]:
            labels = mapped["sem_seg"].numpy()[ids == segment["id"]]
            dataset_id = categories.dataset_id(segment["category_id"], segment["isthing"])
            assert (labels == categories.semantic_id(dataset_id)).all()
        assert (mapped["sem_seg"].numpy()[ids == 0] == 255).all()


def test_input_is_not_changed(street_datasets):
    record = DatasetCatalog.get(street_datasets[0])[0]
    before = copy.deepcopy(record)
    _mapper(street_datasets[0], [T.RandomFlip(1.0)])(record)
    assert record == before


def test_flip_moves_image_and_targets_together(street_datasets):
    record = DatasetCatalog.get(street_datasets[0])[0]
    plain = _mapper(street_datasets[0], [])(record)
    flipped = _mapper(street_datasets[0], [T.RandomFlip(1.0)])(record)
    assert torch.equal(flipped["image"], plain["image"].flip(2))
    assert torch.equal(flipped["sem_seg"], plain["sem_seg"].flip(1))
    assert torch.equal(flipped["instances"].gt_masks.tensor, plain["instances"].gt_masks.tensor.flip(2))


def test_map_is_resized_as_an_rgb_image(street_datasets):
    record = DatasetCatalog.get(street_datasets[0])[1]
    mapped = _mapper(street_datasets[0], [T.Resize((101, 77))])(record)
    rgb = Image.open(record["pan_seg_file_name"]).resize((77, 101), Image.NEAREST)
    ids = np.asarray(rgb).astype(int) @ [1, 256, 65536]
    assert np.array_equal(mapped["sem_seg"].numpy() == 255, ids == 0)
    countable = [s for s in record["segments_info"] if s["isthing"] and not s["iscrowd"] and (ids == s["id"]).any()]
    expected = np.stack([ids == s["id"] for s in countable])
    assert np.array_equal(mapped["instances"].gt_masks.tensor, expected)


def test_padding_is_ignored(street_datasets):
    record = DatasetCatalog.get(street_datasets[0])[0]
    mapped = _mapper(street_datasets[0], [T.FixedSizeCrop((80, 128), pad=True)])(record)
    assert mapped["sem_seg"].shape == (80, 128)
    assert (mapped["sem_seg"][64:] == 255).all()
    assert (mapped["sem_seg"][:, 96:] == 255).all()


def test_crop_comes_after_the_resize(tiny_cfg):
    tiny_cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    tiny_cfg.INPUT.CROP.ENABLED, tiny_cfg.INPUT.CROP.TYPE, tiny_cfg.INPUT.CROP.SIZE = True, "absolute", [48, 80]
    mapper = PanopticDatasetMapper(tiny_cfg, is_train=True)
    for record in DatasetCatalog.get(tiny_cfg.DATASETS.TRAIN[0]):
        mapped = mapper(record)
        assert mapped["image"].shape == (3, 48, 80)
        assert mapped["sem_seg"].shape == (48, 80)
        assert mapped["instances"].has("gt_masks")


def test_inference_reads_the_image_only(street_datasets):
    record = DatasetCatalog.get(street_datasets[1])[0]
    record["pan_seg_file_name"] = "/nowhere.png"
    mapped = _mapper(street_datasets[1], [T.Resize((32, 48))], is_train=False)(record)
    assert mapped["image"].shape == (3, 32, 48)
    assert (mapped["height"], mapped["width"]) == (64, 96)
    assert "instances" not in mapped


def test_separated_dataset(street_datasets, tmp_path):
    """The dicts of detectron2's prepared sets: polygons and a semantic PNG."""
    record = DatasetCatalog.get(street_datasets[0])[0]
    Image.fromarray(np.full((64, 96), 3, np.uint8)).save(tmp_path / "semantic.png")
    polygon = [4.0, 4.0, 20.0, 4.0, 20.0, 30.0, 4.0, 30.0]
    annotation = {"bbox": [4, 4, 20, 30], "bbox_mode": 0, "category_id": 2, "segmentation": [polygon], "iscrowd": 0}
    crowd = {**annotation, "iscrowd": 1}
    separated = {
        "file_name": record["file_name"],
        "image_id": 1,
        "height": 64,
        "width": 96,
        "sem_seg_file_name": str(tmp_path / "semantic.png"),
        "annotations": [annotation, crowd],
    }
    mapped = _mapper(street_datasets[0], [T.Resize((128, 192))])(separated)
    assert (mapped["sem_seg"] == 3).all()
    assert isinstance(mapped["instances"].gt_masks, PolygonMasks)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[8, 8, 40, 60]]
    without = _mapper(street_datasets[0], [])({**separated, "annotations": []})
    assert len(without["instances"].gt_masks) == 0


def test_polygons_with_semantics_from_the_map(street_datasets):
    record = DatasetCatalog.get(street_datasets[0])[0]
    annotation = {"bbox": [4, 4, 20, 30], "bbox_mode": 0, "category_id": 2, "iscrowd": 0}
    annotation["segmentation"] = [[4.0, 4.0, 20.0, 4.0, 20.0, 30.0]]
    mapped = _mapper(street_datasets[0], [])({**record, "annotations": [annotation]})
    plain = _mapper(street_datasets[0], [])(record)
    assert torch.equal(mapped["sem_seg"], plain["sem_seg"])
    assert mapped["instances"].gt_classes.tolist() == [2]


def test_sizes_that_differ(street_datasets, tmp_path):
    record = DatasetCatalog.get(street_datasets[0])[0]
    Image.open(record["pan_seg_file_name"]).crop((0, 0, 50, 40)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png is 50×40 px.*96×64 px"):
        _mapper(street_datasets[0], [])({**record, "pan_seg_file_name": str(tmp_path / "small.png")})
