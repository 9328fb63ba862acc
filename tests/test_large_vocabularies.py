"""Datasets of more classes than a byte holds: every class is learnt and measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_input_data import TinyDataset, train_net
from config_files import CONFIGS
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from PIL import Image
from torch.nn import functional as F

from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper, register_coco_panoptic
from panoptic_fpn_ext.data.targets import panoptic_targets, sem_seg_target
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config
from panoptic_fpn_ext.engine.lazy_training import train_lazily
from panoptic_fpn_ext.evaluation.sem_seg_evaluator import PanopticSemSegEvaluator
from panoptic_fpn_ext.modeling.losses import upsampled_cross_entropy
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png
from panoptic_fpn_ext.structures import LARGE_IGNORE_LABEL

SIZES = ("MODEL.ROI_HEADS.NUM_CLASSES", "0", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0")


def _rows(num_things: int, num_stuff: int) -> list[dict[str, Any]]:
    """Things have ids from 1, stuff follows."""
    ids = range(1, num_things + num_stuff + 1)
    return [{"id": i, "name": f"class {i}", "isthing": int(i <= num_things)} for i in ids]


pytestmark = pytest.mark.usefixtures("restored_state")


def _lvis_like(root: Path) -> tuple[TinyDataset, int, int]:
    """1,203 things and 300 stuff; a ball, a box and two stuff segments, the latter of semantic ids 255 and 256."""
    dataset = TinyDataset(root)
    dataset.content["categories"] = _rows(1203, 300)
    sky, grass = 1203 + 255, 1203 + 256
    for number in (1, 2):
        for segment in dataset.segments(number):
            segment["category_id"] = {1: 1, 4: 1203, 9: sky, 7: grass}[segment["id"]]
    dataset.save()
    return dataset, sky, grass


@pytest.mark.parametrize(
    ("num_things", "num_stuff", "space", "ignored"),
    [
        (0, 254, THINGS_AS_OTHER, 255),
        (9, 255, THINGS_AS_OTHER, 65535),
        (100, 155, ALL_CLASSES, 255),
        (100, 156, ALL_CLASSES, 65535),
        (1203, 300, ALL_CLASSES, 65535),
    ],
)
def test_every_class_has_a_label_and_void_has_another(num_things: int, num_stuff: int, space: Any, ignored: int):
    categories = PanopticCategories(_rows(num_things, num_stuff), space)
    assert categories.ignore_label == ignored
    number = num_things + num_stuff
    for count in (250, number):  # an index map of bytes, where they suffice, and one of wider numbers
        chosen = range(number - count + 1, number + 1)
        ids = np.array([0, *(1000 + i for i in chosen)])[None]
        segments = [
            {"id": 1000 + i, "category_id": categories.category_id(i), "isthing": categories.isthing(i)} for i in chosen
        ]
        targets = panoptic_targets(ids, segments, categories)
        assert targets.sem_seg.tolist() == [[ignored, *map(categories.semantic_id, chosen)]]
        assert targets.instances.gt_classes.tolist() == [
            categories.contiguous_id(i) for i in chosen if categories.isthing(i)
        ]
        assert sem_seg_target(ids, segments, categories, -1).tolist() == [[-1, *map(categories.semantic_id, chosen)]]


def test_more_categories_than_can_be_told_apart_are_refused():
    PanopticCategories(_rows(65000, 534))
    with pytest.raises(ValueError, match="65535 categories; 65534 are the most"):
        PanopticCategories(_rows(65000, 535))


def test_loss_of_many_classes():
    logits = torch.randn(1, 1503, 4, 8, requires_grad=True)
    targets = torch.randint(0, 1503, (1, 16, 32))
    targets[0, :4], targets[0, 4:8] = 65535, 255
    loss = upsampled_cross_entropy(logits, targets, 4, 65535)
    upsampled = F.interpolate(logits, scale_factor=4, mode="bilinear")
    expected = F.cross_entropy(upsampled, targets, ignore_index=65535)
    assert torch.allclose(loss, expected)
    (ours,), (theirs,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    assert torch.allclose(ours, theirs, atol=1e-6) and ours[0, 255].abs().max() > 0


def test_crops_that_look_at_categories_see_them_all(tmp_path: Path):
    """Resized, cropped so that no class has more than 60 %, and flipped, as the image is."""
    categories = PanopticCategories(_rows(3, 300))
    ids = np.full((48, 64), 258)
    ids[:, 40:], ids[40:] = 259, 0
    Image.fromarray(np.stack([ids] * 3, axis=2).astype(np.uint8)).save(tmp_path / "image.png")
    write_panoptic_png(str(tmp_path / "map.png"), ids)
    segments = [{"id": i, "category_id": i - 3, "isthing": False} for i in (258, 259)]  # semantic ids 255 and 256
    record = {"file_name": str(tmp_path / "image.png"), "pan_seg_file_name": str(tmp_path / "map.png")}
    record |= {"height": 48, "width": 64, "image_id": 1, "segments_info": segments}
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (32, 32), 0.6, ignored_category=65535)
    augmentations = [T.Resize((96, 128), Image.NEAREST), crop, T.RandomFlip()]
    mapper = PanopticDatasetMapper(True, categories=categories, augmentations=augmentations)
    shares = []
    for _ in range(10):
        mapped = mapper(record)
        seen = mapped["image"][0].long()
        expected = torch.where(seen == 258 % 256, 255, torch.where(seen == 259 % 256, 256, 65535))
        assert torch.equal(mapped["sem_seg"], expected)
        shares.append((expected == 255).sum() / (expected != 65535).sum())
    assert sum(0.4 <= share <= 0.6 for share in shares) >= 5  # by chance one in five


def test_a_config_that_ignores_a_class_is_refused_and_one_that_leaves_it_open_is_filled_in(tmp_path: Path):
    dataset, _, _ = _lvis_like(tmp_path / "data")
    sizes = ("MODEL.ROI_HEADS.NUM_CLASSES", "1203", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "301")
    with pytest.raises(ValueError, match=r"MODEL\.SEM_SEG_HEAD\.IGNORE_VALUE is 255: set it to 65535"):
        train_net(dataset, "tiny_large", tmp_path / "output", *sizes)
    train_net(dataset, "tiny_large", tmp_path / "output", *SIZES)
    assert "IGNORE_VALUE: 65535" in (tmp_path / "output" / "config.yaml").read_text()
    last = json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[-1])
    assert last["sem_seg/IoU-class 1458"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("ignored", ["65535", "-1", "2000"])
def test_all_classes_in_one_space_train(tmp_path: Path, ignored: str):
    dataset, _, _ = _lvis_like(tmp_path / "data")
    paths = (str(path) for path in (dataset.images, dataset.panoptic, dataset.json))
    register_coco_panoptic("tiny_lvis", *paths, sem_seg_space=ALL_CLASSES)
    names = ("DATASETS.TRAIN", "('tiny_lvis',)", "DATASETS.TEST", "('tiny_lvis',)")
    train_net(dataset, "tiny", tmp_path / "output", *SIZES, *names, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignored)
    last = json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[-1])
    assert last["sem_seg/IoU-class 1458"] >= 0


@pytest.mark.parametrize(("num_stuff", "label"), [(254, 255), (255, 65535), (300, 65535)])
def test_lazy_configs_ignore_no_class_either(tmp_path: Path, num_stuff: int, label: int):
    """With "things as other" the semantic head has a class more than stuff."""
    dataset = TinyDataset(tmp_path / "data")
    dataset.content["categories"] = _rows(4, num_stuff)
    for number in (1, 2):
        for segment in dataset.segments(number):
            segment["category_id"] = {1: 1, 4: 4, 9: 4 + num_stuff - 1, 7: 4 + num_stuff}[segment["id"]]
    dataset.save()
    config = str(CONFIGS / "User-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
    overrides = [f"train.output_dir={tmp_path / 'output'}", "train.max_iter=1", "dataloader.train.total_batch_size=2"]
    overrides.append("dataloader.train.mapper.augmentations.0.short_edge_length=[64]")
    cfg = load_lazy_config(config, overrides, [list(dataset.registration("many"))])
    assert (cfg.model.sem_seg_head.num_classes, cfg.model.sem_seg_head.ignore_value) == (num_stuff + 1, label)
    if label == LARGE_IGNORE_LABEL:
        wrong = [f"model.sem_seg_head.num_classes={num_stuff + 1}", "model.sem_seg_head.ignore_value=255"]
        with pytest.raises(ValueError, match=r"model\.sem_seg_head\.ignore_value is 255: set it to 65535"):
            load_lazy_config(config, [*overrides, *wrong], [list(dataset.registration("many"))])
    targets = next(iter(instantiate(cfg.dataloader.train)))[0]["sem_seg"]
    assert set(targets.unique().tolist()) <= {0, num_stuff - 1, num_stuff, label}
    assert {num_stuff - 1, num_stuff} <= set(targets.unique().tolist())
    assert train_lazily(cfg)["sem_seg"]["mIoU"] >= 0


def test_miou_counts_every_class(tmp_path: Path):
    dataset, sky, grass = _lvis_like(tmp_path / "data")
    register_coco_panoptic(*dataset.registration("tiny_large"))
    categories = PanopticCategories.from_metadata(MetadataCatalog.get("tiny_large"))
    evaluator = PanopticSemSegEvaluator("tiny_large")
    for record in DatasetCatalog.get("tiny_large"):
        labels = sem_seg_target(read_panoptic_png(record["pan_seg_file_name"]), record["segments_info"], categories)
        perfect = F.one_hot(labels, categories.num_sem_seg_classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": perfect}])
    results = evaluator.evaluate()["sem_seg"]
    assert results["mIoU"] == results[f"IoU-class {sky}"] == results[f"IoU-class {grass}"] == 100
    assert categories.semantic_id(sky) == 255


def test_semantic_pngs_of_one_byte_are_refused(tmp_path: Path):
    dataset, _, _ = _lvis_like(tmp_path / "data")
    register_coco_panoptic(*dataset.registration("tiny_large"))
    categories = PanopticCategories.from_metadata(MetadataCatalog.get("tiny_large"))
    Image.new("L", (64, 48), 255).save(tmp_path / "semantic.png")
    record = {**DatasetCatalog.get("tiny_large")[0], "sem_seg_file_name": str(tmp_path / "semantic.png")}
    mapper = PanopticDatasetMapper(True, categories=categories, augmentations=[])
    with pytest.raises(ValueError, match=r"semantic\.png has 8 bits .* 301 semantic classes"):
        mapper(record)
