"""Which images are trained on, and how often, for all of detectron2's samplers."""

import itertools
import logging
import math
from collections import Counter

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data.sampling import category_repeat_factors, with_countable_things
from panoptic_fpn_ext.data.train_loader import TrainLoader
from panoptic_fpn_ext.engine import Trainer

ROWS = [(3, "car", 1), (5, "dog", 1), (7, "road", 0), (9, "sky", 0)]
CATEGORIES = PanopticCategories([{"id": i, "name": name, "isthing": thing} for i, name, thing in ROWS])


def _dict(*dataset_ids: int, iscrowd: int = 0) -> dict:
    rows = [{"category_id": CATEGORIES.category_id(i), "isthing": CATEGORIES.isthing(i)} for i in dataset_ids]
    return {"segments_info": [{**row, "iscrowd": iscrowd} for row in rows]}


def _obvious_factors(images: list[set[int]], threshold: float, sqrt: bool) -> list[float]:
    share = {c: sum(c in image for image in images) / len(images) for image in images for c in image}
    factor = {c: max(1.0, math.sqrt(threshold / s) if sqrt else threshold / s) for c, s in share.items()}
    return [max((factor[c] for c in image), default=1.0) for image in images]


@pytest.mark.parametrize("sqrt", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0])
def test_repeat_factors_count_things_and_stuff_apart(threshold, sqrt):
    images = [{3, 7}, {7, 9}, {5, 7}, {7}, set()]  # dog and road both have id 1 in segments_info
    found = category_repeat_factors([_dict(*image) for image in images], CATEGORIES, threshold, sqrt)
    assert found.tolist() == pytest.approx(_obvious_factors(images, threshold, sqrt))


def test_repeat_factors_of_annotations_are_detectron2s():
    dicts = [{"annotations": [{"category_id": 0}]}, {"annotations": [{"category_id": 1}]}, {"annotations": []}]
    assert category_repeat_factors(dicts, None, 0.6).tolist() == pytest.approx([math.sqrt(1.8), math.sqrt(1.8), 1.0])


def test_the_log_names_categories(caplog):
    with caplog.at_level(logging.INFO):
        category_repeat_factors([_dict(3, 7), _dict(7)], CATEGORIES, 1.0)
    assert "3 (car)" in caplog.text
    assert "7 (road)" in caplog.text


def test_countable_things():
    dicts = [_dict(3), _dict(7), _dict(3, iscrowd=1), _dict(), _dict(5, 9)]
    assert with_countable_things(dicts) == [dicts[0], dicts[4]]


def _drawn(cfg, count: int) -> Counter:
    """How often each image of the training set is drawn among ``count``."""
    loader = Trainer.build_train_loader(cfg)
    batches = itertools.islice(loader, math.ceil(count / cfg.SOLVER.IMS_PER_BATCH))
    return Counter(d["image_id"] for batch in batches for d in batch)


def test_rare_categories_are_drawn_more_often(tiny_cfg, street_datasets):
    tiny_cfg.DATALOADER.SAMPLER_TRAIN, tiny_cfg.DATALOADER.REPEAT_THRESHOLD = "RepeatFactorTrainingSampler", 1.0
    tiny_cfg.DATALOADER.REPEAT_SQRT = False
    dicts = DatasetCatalog.get(street_datasets[0])
    images = [{(s["isthing"], s["category_id"]) for s in d["segments_info"]} for d in dicts]
    factors = _obvious_factors(images, 1.0, sqrt=False)
    assert max(factors) > min(factors)
    drawn = _drawn(tiny_cfg, 4 * round(sum(factors)))
    for d, factor in zip(dicts, factors, strict=True):
        assert drawn[d["image_id"]] / 4 == pytest.approx(factor, abs=1)


@pytest.mark.parametrize(("size", "processes", "fitting"), [(5, 2, 6), (4, 3, 6), (1, 3, 3), (0, 1, 1)])
def test_a_batch_that_the_processes_cannot_share(size, processes, fitting, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    data = [{"width": 2, "height": 1}]
    expected = f"IMS_PER_BATCH .*total_batch_size.* processes, {processes}, got {size}: take {fitting}\\.$"
    with pytest.raises(ValueError, match=expected):
        TrainLoader(data, lambda d: d, total_batch_size=size)
    TrainLoader(data, lambda d: d, total_batch_size=fitting, seed=0)


def test_a_subset(tiny_cfg):
    tiny_cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    assert len(_drawn(tiny_cfg, 16)) == 8
    tiny_cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.25
    assert len(_drawn(tiny_cfg, 16)) == 2
    tiny_cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.01
    with pytest.raises(ValueError, match=r"RANDOM_SUBSET_RATIO is 0\.01.*8 training images"):
        _drawn(tiny_cfg, 16)


@pytest.mark.parametrize("sampler", ["WeightedTrainingSampler", "WeightedCategoryTrainingSampler"])
def test_weights_of_datasets(tiny_cfg, street_datasets, sampler):
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATALOADER.SAMPLER_TRAIN = street_datasets, sampler
    tiny_cfg.DATASETS.TRAIN_REPEAT_FACTOR = [[street_datasets[1], 3.0]]
    drawn = _drawn(tiny_cfg, 40)  # 8 images once and 4 three times, twice over
    of_val = sum(drawn[d["image_id"]] for d in DatasetCatalog.get(street_datasets[1]))
    assert of_val / sum(drawn.values()) == pytest.approx(0.6, abs=0.15)
    tiny_cfg.DATASETS.TRAIN_REPEAT_FACTOR = [["elsewhere", 3.0]]
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN_REPEAT_FACTOR"):
        _drawn(tiny_cfg, 2)


def test_images_without_things_are_left_out_on_request(tiny_cfg, street_datasets, caplog):
    dicts = DatasetCatalog.get(street_datasets[0])
    for d in dicts[:3]:
        d["segments_info"] = [{**s, "iscrowd": 1} if s["isthing"] else s for s in d["segments_info"]]
    DatasetCatalog.remove(street_datasets[0])
    DatasetCatalog.register(street_datasets[0], lambda: dicts)
    assert len(_drawn(tiny_cfg, 16)) == 8
    tiny_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    with caplog.at_level(logging.INFO):
        assert len(_drawn(tiny_cfg, 16)) == 5
    assert "Removed 3 of 8 images" in caplog.text
    for d in dicts:
        d["segments_info"] = [{**s, "iscrowd": 1} for s in d["segments_info"]]
    with pytest.raises(ValueError, match=r"FILTER_EMPTY_ANNOTATIONS to False"):
        _drawn(tiny_cfg, 16)
    tiny_cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    assert len(_drawn(tiny_cfg, 16)) == 8


def test_the_default_sampler_is_detectron2s(tiny_cfg):
    drawn = _drawn(tiny_cfg, 16)
    assert set(drawn.values()) == {2}
    assert torch.initial_seed() == 0  # drawing needs no seed of its own
