"""detectron2's own keys: each is in the docs' table, works, or is refused by name before anything is built."""

import fnmatch
import re

import config_files
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.solver.build import build_lr_scheduler
from places import REPOSITORY

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine import PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.device import use_float32_precision
from panoptic_fpn_ext.engine.settings.option_ranges import RANGES, numbers
from panoptic_fpn_ext.engine.settings.options import check_options

DOCS = REPOSITORY / "docs" / "detectron2_options.md"
NOT_IN_ALL_VERSIONS = {"FLOAT32_PRECISION"}


def _documented() -> list[str]:
    """Keys and patterns of the tables: those in the first column of the first, in the second of the second."""
    with_a_word, as_they_are = DOCS.read_text(encoding="utf-8").split("## Keys that work as they are")
    cells = [row.split("|")[1] for row in with_a_word.splitlines() if row.startswith("| `")]
    return re.findall(r"`([A-Z0-9_.*]+)`", " ".join(cells) + as_they_are)


def test_the_docs_name_every_key_of_detectron2_once():
    documented, keys = _documented(), list(config_files.flat(get_cfg()))
    of_key = {key: [name for name in documented if fnmatch.fnmatchcase(key, name)] for key in keys}
    assert {key: names for key, names in of_key.items() if len(names) != 1} == {}
    used = {name for names in of_key.values() for name in names}
    assert set(documented) - used <= NOT_IN_ALL_VERSIONS


@pytest.mark.parametrize("name", config_files.names("*.yaml"))
def test_configs_of_this_package_ask_for_nothing_impossible(name):
    check_options(config_files.load(name))


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("COCO-PanopticSegmentation/panoptic_fpn_R_101_3x", "PanopticFPNExt"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "PanopticFPN"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "GeneralizedRCNN"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", "GeneralizedRCNN"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x", "GeneralizedRCNN"),
        ("Misc/semantic_R_50_FPN_1x", "SemanticSegmentor"),
    ],
)
@pytest.mark.parametrize("with_our_keys", [True, False])
def test_configs_of_detectron2_are_accepted(name, architecture, with_our_keys):
    cfg = get_cfg()
    if with_our_keys:
        add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(name + ".yaml"))
    cfg.MODEL.META_ARCHITECTURE = architecture
    check_options(cfg)


REFUSED = [
    ("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ("MODEL.META_ARCHITECTURE", "PanopticFPNExtt"),
    ("MODEL.MASK_ON", False),
    ("MODEL.KEYPOINT_ON", True),
    ("MODEL.LOAD_PROPOSALS", True),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]),
    ("MODEL.RPN.NMS_THRESH", float("nan")),
    ("MODEL.RESNETS.DEPTH", 50),  # of a narrow ResNet
    ("MODEL.BACKBONE.NAME", "build_mnasnet"),
    ("MODEL.FPN.NORM", "Group"),
    ("MODEL.FPN.FUSE_TYPE", "max"),
    ("MODEL.FPN.IN_FEATURES", ["res1", "res2"]),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
    ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0], [2.0]]),
    ("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p7"]),
    ("MODEL.RPN.HEAD_NAME", "Head"),
    ("MODEL.RPN.BBOX_REG_LOSS_TYPE", "iou"),
    ("MODEL.ROI_HEADS.NAME", "RROIHeads"),
    ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
    ("MODEL.ROI_HEADS.IN_FEATURES", []),
    ("MODEL.ROI_BOX_HEAD.NAME", ""),
    ("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True),
    ("MODEL.ROI_MASK_HEAD.NAME", "Head"),
    ("MODEL.SEM_SEG_HEAD.NAME", "Head"),
    ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p6"]),
    ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 0),
    ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 3),
    ("MODEL.PANOPTIC_FPN.COMBINE.ENABLED", False),
    ("MODEL.PANOPTIC_FPN.COMBINE.NAME", "Combiner"),
    ("MODEL.RESNETS.NUM_GROUPS", 32),
    ("MODEL.RESNETS.RES5_DILATION", 2),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]),
    ("INPUT.RANDOM_FLIP", "both"),
    ("INPUT.MIN_SIZE_TRAIN", ()),
    ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "uniform"),
    ("INPUT.MASK_FORMAT", "rle"),
    ("INPUT.MAX_SIZE_TEST", 0),
    ("DATALOADER.SAMPLER_TRAIN", "Sampler"),
    ("DATALOADER.NUM_WORKERS", -1),
    ("DATALOADER.MAX_UNREADABLE_IMAGES", -1),
    ("DATASETS.CHECKED_IMAGES", -1),
    ("SOLVER.CHECKPOINTS_TO_KEEP", -1),
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"),
    ("SOLVER.WARMUP_METHOD", "exp"),
    ("SOLVER.MAX_ITER", 0),
    ("SOLVER.BASE_LR", 0.0),
    ("SOLVER.BASE_LR_END", 1.0),
    ("SOLVER.NESTEROV", True),  # with the config's AdamW
    ("SOLVER.CHECKPOINT_PERIOD", 0),
    ("SOLVER.IMS_PER_BATCH", 0),
    ("SOLVER.REFERENCE_WORLD_SIZE", 3),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
    ("SOLVER.STEPS", (3, 2)),
    ("SOLVER.EMA.DECAY", 1.0),
    ("SOLVER.BACKBONE_MULTIPLIER", -1.0),
    ("SOLVER.BACKBONE_MULTIPLIER", float("inf")),
    ("MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE", 1.0),
    ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", -1.0),
    ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", float("inf")),
    ("MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT", -0.5),
    ("MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS", [0.0, 0.0, 0.0, 1.0, 1.0]),
    ("TEST.AUG.MIN_SIZES", ()),
    ("TEST.AUG.MAX_SIZE", 0),
    ("TEST.EXPECTED_RESULTS", [["pq", "PQ", 50.0, 0.1]]),
    ("TEST.EXPECTED_RESULTS", [["panoptic_seg_TTA", "PQ", 50.0, 0.1]]),  # without TEST.AUG
    ("VIS_PERIOD", -1),
    ("SEED", 2**32),
    ("MODEL.DEVICE", "tpu"),
    ("MODEL.FPN.OUT_CHANNELS", 0),
    ("MODEL.RPN.CONV_DIMS", [0]),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", -1),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0)),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
    ("MODEL.RPN.IOU_LABELS", [0, 2, 1]),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", 1.5),
    ("MODEL.ANCHOR_GENERATOR.SIZES", [[-32]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.0]]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [["1:2"]]),
    ("MODEL.ROI_HEADS.IOU_LABELS", [0, 1, 1]),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.5),
    ("MODEL.ROI_BOX_HEAD.FC_DIM", 0),
    ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", -1.0),
    ("MODEL.ROI_MASK_HEAD.NUM_CONV", -1),
    ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 0),
    ("MODEL.SEM_SEG_HEAD.CONVS_DIM", 0),
    ("SOLVER.WARMUP_FACTOR", -5.0),
    ("SOLVER.WEIGHT_DECAY", -1.0),
    ("SOLVER.MOMENTUM", 1.0),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0),
    ("TEST.EXPECTED_RESULTS", [["panoptic_seg", "PQ", "x", 1]]),
    ("TEST.PRECISE_BN.NUM_ITER", 0),
]
OWN_RULES = (  # or any number will do
    *("VERSION", "GLOBAL.HACK", "MODEL.PIXEL_MEAN", "MODEL.BACKBONE.FREEZE_AT", "MODEL.RPN.BOUNDARY_THRESH"),
    *("MODEL.R*.IOU_LABELS", "MODEL.*NMS_THRESH*", "MODEL.*SCORE_THRESH_TEST", "MODEL.PANOPTIC_FPN.COMBINE.*_THRESH"),
    *("MODEL.*HEAD*.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"),
    *("MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS", "MODEL.RESNETS.DEPTH", "MODEL.RESNETS.RES5_DILATION"),
    *("INPUT.CROP.SIZE", "INPUT.MIN_SIZE_TRAIN", "SOLVER.EMA.DECAY", "SOLVER.GAMMA", "TEST.AUG.M*"),
    "TEST.DETECTIONS_PER_IMAGE",
    *("MODEL.RETINANET.*", "MODEL.ROI_KEYPOINT_HEAD.*", "MODEL.ANCHOR_GENERATOR.ANGLES", "DATASETS.PRECOMPUTED_*"),
    "MODEL.ROI_BOX_HEAD.FED_LOSS_*",
)


def test_every_key_of_numbers_has_a_range_or_a_rule():
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    values = {key: list(numbers(value)) for key, value in config_files.flat(cfg).items()}
    of_numbers = {key for key, found in values.items() if found and all(type(one) in (int, float) for one in found)}
    known = {key for key in of_numbers if any(fnmatch.fnmatchcase(key, rule) for rule in OWN_RULES)}
    assert of_numbers - known - RANGES.keys() == set()
    assert RANGES.keys() - config_files.flat(cfg).keys() == set()


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_cannot_work_is_refused_by_name(tiny_cfg: CfgNode, key: str, value: object):
    tiny_cfg.merge_from_list([key, value])
    tiny_cfg.TEST.AUG.ENABLED = key.startswith("TEST.AUG.")
    tiny_cfg.SOLVER.EMA.ENABLED = key.startswith("SOLVER.EMA.")
    if key.endswith(".DIN_WEIGHTS"):
        tiny_cfg.MODEL.PANOPTIC_FPN.COMBINE.NAME = "DINCombiner"
    with pytest.raises(ValueError, match=re.escape(f"  {key} is ")) as error:
        Trainer(tiny_cfg)
    assert str(error.value).count("\n") == 1  # that key and no other


def test_results_that_the_model_cannot_have_are_not_expected(tiny_cfg):
    tiny_cfg.TEST.EXPECTED_RESULTS = [["segm", "AP", 10.0, 1.0]]
    check_options(tiny_cfg)
    tiny_cfg.MODEL.PANOPTIC_FPN.OUTPUTS = ["panoptic_seg"]
    with pytest.raises(ValueError, match=r"TEST\.EXPECTED_RESULTS .* the task one of panoptic_seg\."):
        check_options(tiny_cfg)


def test_several_mistakes_are_one_message(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.KEYPOINT_ON", True, "SOLVER.MAX_ITER", 0])
    with pytest.raises(ValueError, match=r"(?s)MODEL\.KEYPOINT_ON.*set it to False\.\n.*SOLVER\.MAX_ITER"):
        check_options(tiny_cfg)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("relative", [1.5, 0.5]), ("relative_range", [32, 48]), ("absolute", [0.9, 0.9]), ("absolute_range", [9, 8])],
)
def test_crops(tiny_cfg, kind, size):
    tiny_cfg.merge_from_list(["INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size])
    check_options(tiny_cfg)  # there are no crops
    tiny_cfg.INPUT.CROP.ENABLED = True
    with pytest.raises(ValueError, match=r"INPUT\.CROP\.SIZE"):
        check_options(tiny_cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6)),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.4, 0.5, 0.6)),
    ],
)
def test_cascades(tiny_cfg, key, value):
    tiny_cfg.merge_from_list(
        ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
    )
    check_options(tiny_cfg)
    tiny_cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=re.escape(key)):
        check_options(tiny_cfg)


def test_keys_of_parts_that_are_not_there_do_not_matter(tiny_cfg):
    tiny_cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.NUM_FC", 0, "MODEL.META_ARCHITECTURE", "SemanticSegmentor"])
    check_options(tiny_cfg)
    tiny_cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 3, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"])
    tiny_cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.NUM_FC", 2])
    check_options(tiny_cfg)
    tiny_cfg.SOLVER.MAX_ITER = 0
    check_options(tiny_cfg, training=False)


@pytest.mark.parametrize(("classes", "fits"), [(255, 255), (256, 65535), (1000, 65535)])
def test_ignore_value_beside_many_classes(tiny_cfg, classes, fits):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, tiny_cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = classes, fits
    check_options(tiny_cfg)
    tiny_cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = classes - 1
    with pytest.raises(ValueError, match=rf"IGNORE_VALUE is .*set it to {fits}"):
        check_options(tiny_cfg)


def test_intervals_can_be_rescaled_after_the_warmup_only(tiny_cfg):
    tiny_cfg.merge_from_list(["SOLVER.RESCALE_INTERVAL", True, "SOLVER.WARMUP_ITERS", 2, "SOLVER.MAX_ITER", 2])
    with pytest.raises(ValueError, match=r"SOLVER\.RESCALE_INTERVAL is True: SOLVER\.WARMUP_ITERS must be below .* 2"):
        check_options(tiny_cfg)
    tiny_cfg.SOLVER.WARMUP_ITERS = 1
    Trainer(tiny_cfg).train()


def test_the_predictor_refuses_too(tiny_cfg):
    tiny_cfg.merge_from_list(["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (0, 64)])
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MIN_SIZES"):
        PanopticPredictor(tiny_cfg)


def test_what_has_no_test_time_augmentation_and_what_averages_statistics_itself(tiny_cfg):
    tiny_cfg.TEST.AUG.ENABLED = True
    for name in ("PanopticFPNExt", "SeparatePanopticNetworks", "GeneralizedRCNN"):
        tiny_cfg.MODEL.META_ARCHITECTURE = name
        check_options(tiny_cfg)
    for name in ("PanopticFPN", "SemanticSegmentor"):
        tiny_cfg.MODEL.META_ARCHITECTURE = name
        with pytest.raises(ValueError, match=rf"TEST\.AUG\.ENABLED is True: .* not for {name}"):
            check_options(tiny_cfg)
    tiny_cfg.merge_from_list(["TEST.AUG.ENABLED", False, "TEST.PRECISE_BN.ENABLED", True])
    check_options(tiny_cfg)
    tiny_cfg.SOLVER.EMA.ENABLED = True
    with pytest.raises(ValueError, match=r"TEST\.PRECISE_BN\.ENABLED is True"):
        check_options(tiny_cfg)


@pytest.mark.parametrize(("max_iter", "decays"), [(120, 3), (100, 3), (7, 2), (2, 3), (10, 1)])
@pytest.mark.parametrize("warmup", [0, 4])
def test_fixed_gamma_schedule_is_detectron2s_until_its_end(max_iter, decays, warmup):
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.MAX_ITER, cfg.SOLVER.NUM_DECAYS = (
        "WarmupStepWithFixedGammaLR",
        max_iter,
        decays,
    )
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.GAMMA = min(warmup, max_iter - 1), 0.5

    def rates(build, count):
        scheduler = build(cfg, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
        found = []
        for _ in range(count):
            found.append(scheduler.get_last_lr()[0])
            scheduler.optimizer.step()
            scheduler.step()
        return found

    ours = rates(Trainer.build_lr_scheduler, max_iter)  # with the step after the last iteration, where detectron2 fails
    assert ours[:-1] == pytest.approx(rates(build_lr_scheduler, max_iter - 1))
    assert min(ours) >= 0.5**decays * 1e-3


TRAINS = [
    ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 0.9),
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR"),
    ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1),
    ("VIS_PERIOD", 1, "INPUT.CROP.ENABLED", True, "DATALOADER.ASPECT_RATIO_GROUPING", False),
    ("SOLVER.OPTIMIZER", "SGD", "SOLVER.NESTEROV", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value"),
]


@pytest.mark.parametrize("opts", TRAINS, ids=lambda opts: opts[0])
def test_trains_and_evaluates_with_them(tiny_cfg, opts):
    tiny_cfg.merge_from_list(list(opts))
    trainer = Trainer(tiny_cfg)
    trainer.train()
    assert "PQ" in trainer._last_eval_results["panoptic_seg"]


@pytest.mark.parametrize(("value", "tf32"), [("highest", False), ("medium", True), ("", None)])
def test_float32_precision(value, tf32):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        use_float32_precision(value)
        assert torch.get_float32_matmul_precision() == (value or before[0])
        assert torch.backends.cudnn.allow_tf32 is (before[1] if tf32 is None else tf32)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
