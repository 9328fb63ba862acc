"""The recipes: they load, build, say what the paper and detectron2 say, and repeat nothing."""

import pytest
import torch
import yaml
from config_files import COCO, CONFIGS, flat, load, names
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

R50, R101 = ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2://ImageNetPretrained/MSRA/R-101.pkl")
SEPARATED = (["coco_2017_train_panoptic_separated"], ["coco_2017_val_panoptic_separated"])

# Panoptic FPN, sections 4 and 5, and the thresholds of the published code, which the paper leaves out.
ALL_COCO = {
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.SEM_SEG_HEAD.NAME": "PanopticFPNSemSegHead",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 128,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.FUSION": "sum",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 54,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": 1.0,
    "MODEL.PANOPTIC_FPN.COMBINE.NAME": "HeuristicCombiner",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 4096,
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS": [0],
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "SOLVER.GAMMA": 0.1,
}
BATCHES_OF_16 = {"SOLVER.IMS_PER_BATCH": 16, "SOLVER.BASE_LR": 0.02}
ONE_TIME = {**BATCHES_OF_16, "SOLVER.STEPS": [60000, 80000], "SOLVER.MAX_ITER": 90000}
THREE_TIMES = {**BATCHES_OF_16, "SOLVER.STEPS": [210000, 250000], "SOLVER.MAX_ITER": 270000}
PANOPTIC = {
    "MODEL.META_ARCHITECTURE": "PanopticFPNExt",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.5,
    "DATASETS.TRAIN": SEPARATED[0],
    "DATASETS.TEST": SEPARATED[1],
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
}
RESNET_50 = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.NORM": "FrozenBN", "MODEL.WEIGHTS": R50}
RESNET_101 = {"MODEL.RESNETS.DEPTH": 101, "MODEL.RESNETS.NORM": "FrozenBN", "MODEL.WEIGHTS": R101}
PAPER = {
    "panoptic_fpn_R_50_1x": {**PANOPTIC, **RESNET_50, **ONE_TIME},
    "panoptic_fpn_R_50_3x": {**PANOPTIC, **RESNET_50, **THREE_TIMES},
    "panoptic_fpn_R_101_1x": {**PANOPTIC, **RESNET_101, **ONE_TIME},
    "panoptic_fpn_R_101_3x": {**PANOPTIC, **RESNET_101, **THREE_TIMES},
    # As many images and as many epochs before each step as THREE_TIMES.
    "panoptic_fpn_R_101_dconv_cascade_gn_3x": {
        **PANOPTIC,
        "MODEL.RESNETS.DEPTH": 101,
        "MODEL.RESNETS.NORM": "GN",
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True],
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
        "SOLVER.IMS_PER_BATCH": 32,
        "SOLVER.BASE_LR": 0.04,
        "SOLVER.STEPS": [105000, 125000],
        "SOLVER.MAX_ITER": 135000,
    },
    "semantic_fpn_R_50_1x": {
        **RESNET_50,
        **ONE_TIME,
        "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
        "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
        "DATASETS.TRAIN": ["coco_2017_train_panoptic_stuffonly"],
    },
    "mask_rcnn_R_50_FPN_1x": {
        **RESNET_50,
        **ONE_TIME,
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "DATASETS.TRAIN": ["coco_2017_train"],
    },
    "separate_R_50_FPN_x2_1x": {
        **PANOPTIC,
        **RESNET_50,
        **ONE_TIME,
        "MODEL.META_ARCHITECTURE": "SeparatePanopticNetworks",
        "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.0,
    },
}

# detectron2's config of the same model, and where ours differs on purpose.
SAME_MODEL = {"MODEL.META_ARCHITECTURE", "MODEL.SEM_SEG_HEAD.NAME"}
TWINS = {
    "panoptic_fpn_R_50_1x": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", SAME_MODEL),
    "panoptic_fpn_R_50_3x": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x", SAME_MODEL),
    "panoptic_fpn_R_101_3x": ("COCO-PanopticSegmentation/panoptic_fpn_R_101_3x", SAME_MODEL),
    "panoptic_fpn_R_101_dconv_cascade_gn_3x": ("Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x", SAME_MODEL),
    # Keys of the head that the model does not have.
    "mask_rcnn_R_50_FPN_1x": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        {"MODEL.SEM_SEG_HEAD.NAME", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT"},
    ),
    # Its dataset has no annotations that could be empty, and the model no masks.
    "semantic_fpn_R_50_1x": (
        "Misc/semantic_R_50_FPN_1x",
        {"MODEL.SEM_SEG_HEAD.NAME", "MODEL.MASK_ON", "DATALOADER.FILTER_EMPTY_ANNOTATIONS"},
    ),
}
WITHOUT_A_TWIN = {"panoptic_fpn_R_101_1x", "separate_R_50_FPN_x2_1x"}


def build(cfg: CfgNode) -> nn.Module:
    """The model without memory for its parameters: names and shapes in a twentieth of a second."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", names("*.yaml"))
def test_builds(name):
    cfg = load(name)
    assert type(build(cfg)).__name__ == cfg.MODEL.META_ARCHITECTURE


@pytest.mark.parametrize("name", names("*.yaml", bases=True))
def test_child_holds_only_its_differences(name):
    raw = yaml.safe_load((CONFIGS / name).read_text())
    if "_BASE_" not in raw:
        pytest.skip("has no parent")
    parent = flat(load((CONFIGS / name).parent / raw.pop("_BASE_")))
    own = flat(load(name))
    assert not [key for key in flat(raw) if own[key] == parent[key]]


def test_every_coco_config_has_its_settings_in_this_file():
    there_are = {name.removeprefix(f"{COCO}/").removesuffix(".yaml") for name in names(f"{COCO}/*.yaml")}
    assert there_are == set(PAPER) == set(TWINS) | WITHOUT_A_TWIN


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name):
    settings = flat(load(f"{COCO}/{name}.yaml"))
    expected = {**ALL_COCO, **PAPER[name]}
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize("name", TWINS)
def test_settings_are_detectron2s(name):
    twin, differences = TWINS[name]
    theirs = get_cfg()
    theirs.merge_from_file(detectron2_zoo.get_config_file(f"{twin}.yaml"))
    theirs, ours = flat(theirs), flat(load(f"{COCO}/{name}.yaml"))
    assert {key for key, value in theirs.items() if ours[key] != value} == differences


@pytest.mark.parametrize("name", TWINS)
def test_checkpoints_of_detectron2s_model_fit(name):
    """No name is missing, none unexpected, and all shapes are equal."""
    theirs = get_cfg()
    theirs.merge_from_file(detectron2_zoo.get_config_file(f"{TWINS[name][0]}.yaml"))
    assert shapes(build(load(f"{COCO}/{name}.yaml"))) == shapes(build(theirs))


def test_two_networks_have_the_parameters_of_both():
    pair, panoptic, mask_rcnn, semantic = (
        shapes(build(load(f"{COCO}/{name}.yaml")))
        for name in ("separate_R_50_FPN_x2_1x", "panoptic_fpn_R_50_1x", "mask_rcnn_R_50_FPN_1x", "semantic_fpn_R_50_1x")
    )
    assert panoptic.items() <= pair.items()
    assert mask_rcnn.items() <= pair.items()
    renamed = {f"semantic_{name}" if name.startswith("backbone.") else name: s for name, s in semantic.items()}
    assert renamed.items() <= pair.items()
    assert set(pair) == {*mask_rcnn, *renamed}
