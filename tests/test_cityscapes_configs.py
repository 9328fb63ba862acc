"""The Cityscapes recipes: each says what the paper says, holds only its differences, and builds."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from panoptic_fpn_ext.cityscapes_labels import categories
from panoptic_fpn_ext.data.cityscapes_panoptic import describe_cityscapes_panoptic
from panoptic_fpn_ext.engine.checkpoints.model_categories import dataset_source
from panoptic_fpn_ext.engine.checks import check_head_sizes
from panoptic_fpn_ext.model_zoo import get_config, get_config_file

FOLDER = "Cityscapes-PanopticSegmentation"
R50, R101 = ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2://ImageNetPretrained/MSRA/R-101.pkl")
THINGS = [index for index, row in enumerate(categories()) if row["isthing"]]

# Panoptic FPN, sections 4 and 5, for all five; below, what the paper leaves out, as in detectron2's recipes.
SHARED = {
    "SOLVER.IMS_PER_BATCH": 32,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.MAX_ITER": 65000,
    "SOLVER.STEPS": [40000, 55000],
    "SOLVER.GAMMA": 0.1,
    "INPUT.MIN_SIZE_TRAIN": [512, 2048],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
    "INPUT.MAX_SIZE_TRAIN": 4096,
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [512, 1024],
    "INPUT.COLOR_AUG_SSD": False,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 1.0,
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.SEM_SEG_HEAD.NAME": "PanopticFPNSemSegHead",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 128,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.FUSION": "sum",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS": THINGS,
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 2048,
    "DATASETS.TRAIN": ["cityscapes_panoptic_train"],
    "DATASETS.TEST": ["cityscapes_panoptic_val"],
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TEST": 2048,
}
ONE = {"MODEL.META_ARCHITECTURE": "PanopticFPNExt", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": 0.5}
RESNET_50 = {"MODEL.RESNETS.DEPTH": 50, "MODEL.WEIGHTS": R50}
RECIPES: dict[str, dict[str, Any]] = {
    "panoptic_fpn_R_50": {**ONE, **RESNET_50},
    "panoptic_fpn_R_101": {**ONE, "MODEL.RESNETS.DEPTH": 101, "MODEL.WEIGHTS": R101},
    "semantic_fpn_R_50": {"MODEL.META_ARCHITECTURE": "SemanticSegmentor", **RESNET_50},
    "mask_rcnn_R_50_FPN": {"MODEL.META_ARCHITECTURE": "GeneralizedRCNN", **RESNET_50},
    "separate_R_50_FPN_x2": {
        "MODEL.META_ARCHITECTURE": "SeparatePanopticNetworks",
        "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": 1.0,  # trained apart, neither network weighs its losses
        **RESNET_50,
    },
}


def _get(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return list(cfg) if isinstance(cfg, tuple) else cfg


def _leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.items():
        result |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def test_every_recipe_is_described_here():
    folder = Path(get_config_file(f"{FOLDER}/panoptic_fpn_R_50")).parent
    assert {path.stem for path in folder.glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_the_papers(name):
    cfg = get_config(f"{FOLDER}/{name}")
    wanted = {**SHARED, **RECIPES[name]}
    assert {key: _get(cfg, key) for key in wanted} == wanted
    assert cfg.OUTPUT_DIR.endswith(name)


@pytest.mark.parametrize("name", RECIPES)
def test_children_hold_only_their_differences(name):
    path = Path(get_config_file(f"{FOLDER}/{name}"))
    said = _leaves(yaml.safe_load(path.read_text()))
    parent = get_config(str(path.parent / said.pop("_BASE_")))
    assert not [key for key, value in said.items() if _get(parent, key) == value]


@pytest.mark.parametrize("name", RECIPES)
def test_builds(name, no_cityscapes):
    """Heads of the right size, and all stages of the backbone learn."""
    cfg = get_config(f"{FOLDER}/{name}")
    cfg.MODEL.DEVICE = "cpu"
    describe_cityscapes_panoptic()
    check_head_sizes(cfg, dataset_source(cfg.DATASETS.TEST[0]))
    model = build_model(cfg)
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert shapes.get("sem_seg_head.predictor.weight", (19, 128, 1, 1)) == (19, 128, 1, 1)
    assert shapes.get("roi_heads.box_predictor.cls_score.weight", (9, 1024)) == (9, 1024)
    assert all(p.requires_grad for key, p in model.named_parameters() if "backbone" in key)
    assert len([key for key in shapes if key.endswith("stem.conv1.weight")]) == (2 if "separate" in name else 1)
