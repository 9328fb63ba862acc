"""One warning, with a value that fits, for settings that empty the result; none for what this package ships."""

import itertools
import json
import re
from pathlib import Path

import config_files
import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from PIL import Image

from panoptic_fpn_ext.data.segment_statistics import segment_statistics
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.checks import fill_in_num_classes
from panoptic_fpn_ext.engine.settings.silent_settings import warn_of_segments, warn_of_settings


def _warn(cfg: CfgNode, name: str, training: bool = True) -> None:
    warn_of_settings(cfg, [name], training=training)
    warn_of_segments(cfg, name, DatasetCatalog.get(name), training=training)


@pytest.fixture(scope="module")
def full_size_street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    make_synthetic_street(str(root), StreetSettings(num_train=40, num_val=1))
    return root


def _coco_files(root: Path, split: str) -> tuple[Path, Path, Path]:
    return root / split, root / f"panoptic_{split}", root / "annotations" / f"panoptic_{split}.json"


@pytest.mark.parametrize("name", config_files.names("SyntheticStreet*/*.yaml"))
def test_silent_on_the_embedded_dataset(full_size_street, register, warnings_of, name):
    dataset = register("full_size_street", *_coco_files(full_size_street, "train"))
    assert warnings_of(_warn, config_files.load(name), dataset) == []


@pytest.mark.parametrize("name", config_files.names("User*/*.yaml"))
@pytest.mark.parametrize("split", ["train", "val"])
def test_silent_on_real_photographs(labelme_facade_dir, register, warnings_of, name, split):
    root = labelme_facade_dir
    dataset = register("user_data", root / "images", root / f"panoptic_{split}", root / f"panoptic_{split}.json")
    cfg = config_files.load(name)
    cfg.DATASETS.TRAIN = (dataset,)
    fill_in_num_classes(cfg)
    assert warnings_of(_warn, cfg, dataset) == []


@pytest.mark.parametrize("name", config_files.names("COCO*/*.yaml"))
def test_silent_on_coco(coco_sample_dir, register, warnings_of, name):
    dataset = register("coco_sample", *_coco_files(coco_sample_dir, "val2017"))
    found = warnings_of(_warn, config_files.load(name), dataset)
    # Thirteen images do not show all of COCO's categories.
    assert [w for w in found if "have no segment in the training set" not in w] == []
    assert warnings_of(_warn, config_files.load(name), dataset, training=False) == []


SETTINGS = [
    ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 1.0, "no instance ever enters"),
    ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 50.0, "no instance ever enters"),
    ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.01, "lost before the panoptic map"),
    ("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", -0.1, "no instance ever enters"),
    ("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", 50.0, "never dropped"),
    ("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 5000, "become void"),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0, "no instance is ever detected"),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.0, "suppress each other"),
    ("MODEL.RPN.NMS_THRESH", 1.5, "no box suppresses another"),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", 0, "cannot be found"),
    ("MODEL.RPN.POSITIVE_FRACTION", 0.0, "things are not learnt"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[64], [128], [256], [512], [1024]], "no anchor comes near"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[1], [1.5], [2], [2.5], [3]], "no anchor comes near"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.02, 50.0]], "no anchor comes near"),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 200, "are smaller in training"),
    ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.0, "stuff is not learnt"),
    ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.0, "are not learnt"),
    ("MODEL.BACKBONE.FREEZE_AT", 2, "random weights"),
    ("MODEL.RESNETS.NORM", "FrozenBN", "normalise nothing"),
    ("SOLVER.WARMUP_ITERS", 1000, "never reaches"),
    ("TEST.DETECTIONS_PER_IMAGE", 1, "cannot be found"),
    ("INPUT.MIN_SIZE_TEST", 800, "times larger than in training"),
]


@pytest.mark.parametrize(("key", "value", "words"), SETTINGS)
def test_one_warning_with_a_value_that_fits(full_size_street, register, warnings_of, key, value, words):
    dataset = register("full_size_street", *_coco_files(full_size_street, "train"))
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml")
    cfg.INPUT.MAX_SIZE_TEST = 1333
    assert warnings_of(_warn, cfg, dataset) == []
    cfg.merge_from_list([key, value])
    (warning,) = warnings_of(_warn, cfg, dataset)
    assert words in warning
    assert key in warning
    # What the warning proposes silences it.
    named = warning.split(" ")[0]
    fits = re.search(r"Set (?:it|the former|MODEL.BACKBONE.FREEZE_AT) to (?:at most )?(.*?)(?:, or .*)?\.$", warning)[1]
    cfg.merge_from_list([named, fits])
    assert warnings_of(_warn, cfg, dataset) == []


def test_a_model_without_things_is_not_told_that_it_finds_none(warnings_of):
    cfg = config_files.load(f"{config_files.COCO}/panoptic_fpn_R_50_1x.yaml")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    assert warnings_of(warn_of_settings, cfg, [])
    assert not warnings_of(warn_of_settings, cfg, [], has_things=False)


def test_frozen_statistics_need_weights(warnings_of):
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_efficientnet_lite0_demo.yaml")
    assert warnings_of(warn_of_settings, cfg, [], training=True) == []
    cfg.MODEL.WEIGHTS = ""
    (warning,) = warnings_of(warn_of_settings, cfg, [], training=True)
    assert warning.startswith("MODEL.EFFICIENTNET_LITE.NORM is FrozenBN")
    assert warnings_of(warn_of_settings, cfg, []) == []
    cfg.MODEL.EFFICIENTNET_LITE.NORM = "BN"
    assert warnings_of(warn_of_settings, cfg, [], training=True) == []


def test_stochastic_depth_needs_its_backbone(warnings_of):
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.yaml")
    cfg.MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE = 0.3
    (warning,) = warnings_of(warn_of_settings, cfg, [], training=True)
    assert warning.startswith("MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE is 0.3")
    assert warnings_of(warn_of_settings, cfg, []) == []


def test_the_jaccard_loss_needs_its_head(warnings_of):
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.yaml")
    cfg.MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT = 1.0
    assert warnings_of(warn_of_settings, cfg, [], training=True) == []
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    (warning,) = warnings_of(warn_of_settings, cfg, [], training=True)
    assert "JACCARD_LOSS_WEIGHT is 1 and MODEL.SEM_SEG_HEAD.NAME SemSegFPNHead, which does not read it" in warning
    assert warnings_of(warn_of_settings, cfg, []) == []


def test_views_smaller_than_the_plain_image(warnings_of):
    cfg = config_files.load("User-PanopticSegmentation/panoptic_fpn_efficientnet_lite0.yaml")
    cfg.TEST.AUG.MAX_SIZE = cfg.INPUT.MAX_SIZE_TEST - 1
    assert warnings_of(warn_of_settings, cfg, []) == []
    cfg.TEST.AUG.ENABLED = True
    (warning,) = warnings_of(warn_of_settings, cfg, [])
    assert warning.startswith("TEST.AUG.MAX_SIZE is 799") and warning.endswith("Set it to 960.")
    cfg.TEST.AUG.MAX_SIZE = 960
    assert warnings_of(warn_of_settings, cfg, []) == []


@pytest.mark.parametrize("name", config_files.names("*/*.yaml"))
def test_views_of_our_configs_fit(warnings_of, name):
    cfg = config_files.load(name)
    cfg.TEST.AUG.ENABLED = True
    assert [w for w in warnings_of(warn_of_settings, cfg, []) if "AUG" in w] == []


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("absolute", [600, 600], "nothing is cropped"),
        ("absolute_range", [500, 600], "nothing is cropped"),
        ("absolute", [8, 8], "never seen whole"),
        ("relative", [0.05, 0.05], "never seen whole"),
        ("absolute", [128, 192], None),
        ("relative_range", [0.5, 0.5], None),
    ],
)
def test_crops(full_size_street, register, warnings_of, kind, size, words):
    dataset = register("full_size_street", *_coco_files(full_size_street, "train"))
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml")
    cfg.merge_from_list(["INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size, "INPUT.CROP.ENABLED", True])
    found = warnings_of(_warn, cfg, dataset)
    assert [w.split(" is ")[0] for w in found] == (["INPUT.CROP.SIZE"] if words else [])
    assert all(words in w for w in found)


def _dataset(folder: Path, categories: list[dict], segments: list[tuple[int, int, tuple[int, int, int, int]]], **extra):
    """One image, 64×64 px, with segments (category, iscrowd, box XYWH) and no areas in its JSON."""
    rgb, rows = np.zeros((64, 64, 3), np.uint8), []
    for id_, (category, iscrowd, (x, y, w, h)) in enumerate(segments, start=1):
        rgb[y : y + h, x : x + w, 0] = id_
        rows.append({"id": id_, "category_id": category, "iscrowd": iscrowd, **extra})
    for part in ("images", "panoptic"):
        (folder / part).mkdir()
        Image.fromarray(rgb).save(folder / part / "0.png")
    image = {"id": 1, "file_name": "0.png", "height": 64, "width": 64}
    annotation = {"image_id": 1, "file_name": "0.png", "segments_info": rows}
    content = {"images": [image], "annotations": [annotation], "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder / "images", folder / "panoptic", folder / "panoptic.json"


CAR, BUS = {"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "bus", "isthing": 1}
ROAD, SKY = {"id": 3, "name": "road", "isthing": 0}, {"id": 4, "name": "sky", "isthing": 0}


@pytest.mark.parametrize(
    ("categories", "segments", "words"),
    [
        (
            [ROAD, SKY],
            [(3, 0, (0, 0, 64, 32)), (4, 0, (0, 32, 64, 32))],
            "no thing.*datumaro and CVAT.*isthing to 1",
        ),
        ([CAR, BUS], [(1, 0, (0, 0, 20, 16)), (2, 0, (32, 32, 16, 16))], "has no stuff.*isthing to 0"),
        (
            [CAR, BUS, ROAD, SKY],
            [(1, 0, (0, 0, 16, 16)), (3, 0, (0, 32, 64, 32))],
            "2 of 4 categories .* no segment .*: bus, sky",
        ),
        ([CAR, ROAD], [(1, 1, (0, 0, 16, 16)), (3, 0, (0, 32, 64, 32))], "All segments of car .*iscrowd 1"),
        ([CAR, ROAD], [(1, 0, (0, 0, 16, 16)), (3, 0, (0, 32, 10, 10))], "STUFF_AREA_LIMIT is 128 px: 100 %.*to 64"),
        ([CAR, ROAD], [(1, 0, (0, 0, 60, 2)), (3, 0, (0, 32, 64, 32))], "ASPECT_RATIOS is .*no anchor"),
    ],
)
def test_categories_and_sizes_that_only_the_maps_tell(tmp_path, register, warnings_of, categories, segments, words):
    dataset = register("drawn", *_dataset(tmp_path, categories, segments))
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml")
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64,), 64
    found = warnings_of(_warn, cfg, dataset)
    assert len(found) == 1
    assert re.search(words, found[0])


def test_halves_are_not_told_of_what_they_lack(tmp_path, register, warnings_of):
    dataset = register("drawn", *_dataset(tmp_path, [ROAD], [(3, 0, (0, 0, 64, 64))]))
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/semantic_fpn_R_18_narrow.yaml")
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 2.0
    assert warnings_of(_warn, cfg, dataset) == []


def test_statistics_are_those_of_the_maps(street_datasets):
    """Against counting in every map."""
    dicts = DatasetCatalog.get(street_datasets[0])
    stripped = [
        {**d, "segments_info": [{k: v for k, v in s.items() if k not in ("area", "bbox")} for s in d["segments_info"]]}
        for d in dicts
    ]
    expected, found = segment_statistics(dicts), segment_statistics(stripped)
    for name in ("image_sizes", "things_per_image", "box_sizes", "box_images", "stuff_areas", "stuff_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.categories == expected.categories
    assert found.things_per_image.sum() == len(found.box_sizes)


def test_training_and_evaluation_warn_at_their_start(tiny_cfg, warnings_of):
    tiny_cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 10000
    tiny_cfg.MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = -1.0
    keys = {"MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH"}
    for begin in (lambda: Trainer(tiny_cfg), lambda: Trainer.build_test_loader(tiny_cfg, tiny_cfg.DATASETS.TEST[0])):
        found = warnings_of(begin)
        assert keys <= {w.split(" is ")[0] for w in found}
        assert all(len(list(group)) == 1 for _, group in itertools.groupby(sorted(w.split(" is ")[0] for w in found)))
