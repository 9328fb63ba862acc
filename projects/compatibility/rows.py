"""What may stand in the place of a part of the network: one row each, as small as it can be."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import MViT, SimpleFeaturePyramid, SwinTransformer, ViT, build_model
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem
from omegaconf import DictConfig
from torch import nn

from panoptic_fpn_ext import add_panoptic_fpn_ext_config, model_zoo
from panoptic_fpn_ext.engine.settings.options import check_options

THINGS, SEMANTIC_CLASSES, WIDTH = 4, 8, 32


class Row(NamedTuple):
    """A part that is tried.

    Attributes:
        part: of the network.
        name: what stands there, as the table has it.
        options: ``KEY VALUE`` pairs for detectron2's ``panoptic_fpn_R_50_1x.yaml``, narrow.
        lazy: instead of them, what changes in the LazyConfig of the same model.
        project: of detectron2's, whose keys and classes it needs.
        package: that it needs.
        word: what a user has to know; of a refused part, why.
        refused: a piece of the message with which it is refused.
        keypoints: whether the training needs them.
        slow: whether it takes long to try.
    """

    part: str
    name: str
    options: Sequence[Any] = ()
    lazy: Callable[[DictConfig], None] | None = None
    project: str = ""
    package: str = ""
    word: str = ""
    refused: str = ""
    keypoints: bool = False
    slow: bool = False

    def config(self) -> CfgNode:
        """The narrow yacs config with the row's options; keys of parts that a LazyConfig has stay as they are."""
        cfg = get_cfg()
        add_panoptic_fpn_ext_config(cfg)
        cfg.merge_from_file(detectron2_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
        _add_project_keys(cfg, self.project)
        cfg.merge_from_list([*_NARROW, *self.options])
        return cfg

    def build(self) -> nn.Module:
        """The model, after the checks that `train_net.py` makes."""
        if self.lazy is None:
            cfg = self.config()
            if not self.keypoints:
                check_options(cfg)
            return build_model(cfg)
        model = narrow_lazy_model()
        self.lazy(model)
        return instantiate(model)


_NARROW: Final[list[Any]] = [
    *("MODEL.META_ARCHITECTURE", "PanopticFPNExt", "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""),
    *("MODEL.BACKBONE.NAME", "build_narrow_resnet_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", 0),
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.FPN.OUT_CHANNELS", WIDTH, "MODEL.ROI_BOX_HEAD.FC_DIM", WIDTH),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", WIDTH, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.SEM_SEG_HEAD.CONVS_DIM", WIDTH),
    *("MODEL.ROI_HEADS.NUM_CLASSES", THINGS, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", SEMANTIC_CLASSES),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [96]], "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 50, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "TEST.DETECTIONS_PER_IMAGE", 20),
    *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 16, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.1),
]


def _add_project_keys(cfg: CfgNode, project: str) -> None:
    """Keys of a project of detectron2, as its own scripts add them; importing it registers its classes."""
    if project == "point_rend":
        from detectron2.projects.point_rend import add_pointrend_config

        add_pointrend_config(cfg)
    elif project == "deeplab":
        from detectron2.projects.deeplab import add_deeplab_config

        add_deeplab_config(cfg)


def narrow_lazy_model(things: int = THINGS, semantic_classes: int = SEMANTIC_CLASSES) -> DictConfig:
    """``configs/common/models/panoptic_fpn.py``, narrow."""
    model = LazyConfig.load(model_zoo.get_config_file("common/models/panoptic_fpn.py")).model
    model.backbone.out_channels, model.backbone.bottom_up.freeze_at = WIDTH, 0
    model.proposal_generator.head.in_channels = WIDTH
    model.proposal_generator.anchor_generator.sizes = [[8], [16], [32], [64], [96]]
    model.proposal_generator.post_nms_topk = (50, 50)
    heads = model.roi_heads
    heads.num_classes, heads.batch_size_per_image = things, 16
    heads.box_head.input_shape = ShapeSpec(channels=WIDTH, height=7, width=7)
    heads.box_head.fc_dims, heads.box_predictor.input_shape = [WIDTH, WIDTH], ShapeSpec(channels=WIDTH)
    heads.box_predictor.test_score_thresh, heads.box_predictor.test_topk_per_image = 0.0, 20
    heads.mask_head.input_shape = ShapeSpec(channels=WIDTH, height=14, width=14)
    heads.mask_head.conv_dims = [WIDTH, WIDTH]
    model.sem_seg_head.num_classes, model.sem_seg_head.conv_dims = semantic_classes, WIDTH
    model.sem_seg_head.input_shape = {f"p{i}": ShapeSpec(channels=WIDTH, stride=2**i) for i in range(2, 6)}
    model.combiner.stuff_area_threshold, model.combiner.instance_score_threshold = 16, 0.1
    return model


def _regnet(model: DictConfig) -> None:
    model.backbone.bottom_up = L(RegNet)(
        stem_class=SimpleStem,
        stem_width=16,
        block_class=ResBottleneckBlock,
        depth=6,
        w_a=24.0,
        w_0=16,
        w_m=2.0,
        group_width=8,
        norm="BN",
        out_features=["s1", "s2", "s3", "s4"],
    )
    model.backbone.in_features = ["s1", "s2", "s3", "s4"]


def _vitdet(model: DictConfig) -> None:
    net = L(ViT)(img_size=96, patch_size=16, embed_dim=16, depth=2, num_heads=2, window_size=2, use_rel_pos=True)
    net.window_block_indexes, net.out_feature = [0], "last_feat"
    model.backbone = L(SimpleFeaturePyramid)(
        net=net,
        in_feature="last_feat",
        out_channels=WIDTH,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=L(LastLevelMaxPool)(),
        norm="LN",
        square_pad=96,
    )


def _swin(model: DictConfig) -> None:
    model.backbone.bottom_up = L(SwinTransformer)(
        embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[0, 1, 2, 3]
    )
    model.backbone.in_features = ["p0", "p1", "p2", "p3"]


def _mvit(model: DictConfig) -> None:
    model.backbone = L(FPN)(
        bottom_up=L(MViT)(
            embed_dim=8,
            depth=5,
            num_heads=1,
            last_block_indexes=(0, 1, 3, 4),
            residual_pooling=True,
            drop_path_rate=0.0,
            norm_layer=nn.LayerNorm,
            img_size=96,
            out_features=("scale2", "scale3", "scale4", "scale5"),
        ),
        in_features=["scale2", "scale3", "scale4", "scale5"],
        out_channels=WIDTH,
        norm="LN",
        top_block=L(LastLevelMaxPool)(),
        square_pad=96,
    )


def _resnet(depth: int, **more: Any) -> list[Any]:
    pairs = {"DEPTH": depth, "STEM_OUT_CHANNELS": WIDTH, "RES2_OUT_CHANNELS": WIDTH, **more}
    return ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"] + [
        x for key, value in pairs.items() for x in (f"MODEL.RESNETS.{key}", value)
    ]


_BASIC_BLOCKS = {"RES2_OUT_CHANNELS": 64, "STEM_OUT_CHANNELS": 64}
_OF_32 = {"WIDTH_PER_GROUP": 32, "NORM": "GN"}
_POINTREND = ["MODEL.ROI_MASK_HEAD.FC_DIM", WIDTH, "MODEL.ROI_MASK_HEAD.NUM_FC", 1, "MODEL.POINT_HEAD.FC_DIM", WIDTH]
_SCRIPT = "in a script that calls `{}` before it reads the config"
_TIMM = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.PRETRAINED", False, "MODEL.TIMM.NAME"]
_RETINA_LEVELS = [
    *_resnet(50),
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone", "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
    *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"], "MODEL.RPN.IN_FEATURES", ["p3", "p4", "p5", "p6", "p7"]),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"], "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p3", "p4", "p5"]),
    *("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8),
]
_HEADS, _BACKBONE, _PYRAMID, _SEMANTIC = "RoI heads", "backbone", "pyramid", "semantic head"

ROWS: Final = (
    Row(_HEADS, "`StandardROIHeads`"),
    Row(
        _HEADS,
        "`CascadeROIHeads`",
        ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    ),
    Row(_HEADS, "class-agnostic masks", ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True]),
    Row(
        _HEADS,
        "PointRend's mask head",
        [
            *("MODEL.ROI_HEADS.NAME", "PointRendROIHeads", "MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead"),
            *("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", True, *_POINTREND),
            *("MODEL.POINT_HEAD.NUM_CLASSES", THINGS, "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 3),
        ],
        project="point_rend",
        word=_SCRIPT.format("add_pointrend_config"),
    ),
    Row(
        _HEADS,
        "keypoints",
        [
            "MODEL.KEYPOINT_ON",
            True,
            "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
            [8],
            "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
            3,
        ],
        keypoints=True,
        word="in a script of yours whose mapper gives `gt_keypoints`; `train_net.py` refuses `MODEL.KEYPOINT_ON`, "
        "since no panoptic dataset has keypoints",
    ),
    Row(
        _HEADS,
        "rotated boxes",
        ["MODEL.ROI_HEADS.NAME", "RROIHeads", "MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"],
        refused="panoptic masks have upright boxes",
        word="panoptic masks have upright boxes",
    ),
    Row(_BACKBONE, "ResNet-18", _resnet(18, **_BASIC_BLOCKS)),
    Row(_BACKBONE, "ResNet-34", _resnet(34, **_BASIC_BLOCKS), slow=True),
    Row(_BACKBONE, "ResNet-101", _resnet(101), slow=True),
    Row(_BACKBONE, "ResNet-152", _resnet(152), slow=True),
    Row(_BACKBONE, "ResNeXt", _resnet(50, NUM_GROUPS=4, WIDTH_PER_GROUP=4)),
    Row(_BACKBONE, "group norm", [*_resnet(50, **_OF_32), "MODEL.FPN.NORM", "GN"]),
    Row(_BACKBONE, "synchronised batch norm", [*_resnet(50, NORM="SyncBN"), "MODEL.FPN.NORM", "SyncBN"]),
    Row(_BACKBONE, "deformable convolutions", _resnet(50, DEFORM_ON_PER_STAGE=[False, True, True, True])),
    Row(
        _BACKBONE,
        "modulated deformable convolutions",
        _resnet(50, DEFORM_ON_PER_STAGE=[False, False, True, True], DEFORM_MODULATED=True, DEFORM_NUM_GROUPS=2),
    ),
    Row(_BACKBONE, "RegNet", lazy=_regnet, word="LazyConfig"),
    Row(_BACKBONE, "ViTDet", lazy=_vitdet, package="timm", word="LazyConfig"),
    Row(_BACKBONE, "Swin", lazy=_swin, package="timm", word="LazyConfig"),
    Row(_BACKBONE, "MViT", lazy=_mvit, package="timm", word="LazyConfig"),
    Row(
        _BACKBONE,
        "any feature extractor of `timm`",
        [*_TIMM, "mobilenetv3_small_050"],
        package="timm",
        word="`build_timm_fpn_backbone`, `MODEL.TIMM.NAME`",
        slow=True,
    ),
    Row(
        _BACKBONE,
        "extractors of `timm` whose maps do not halve",
        [*_TIMM, "vit_tiny_patch16_224"],
        package="timm",
        refused="feature maps have strides",
        word="a pyramid needs maps that halve; plain ViTs stand under `SimpleFeaturePyramid`",
    ),
    Row(_PYRAMID, "extra levels, other strides (p3 … p7)", _RETINA_LEVELS, word="`MODEL.SEM_SEG_HEAD.COMMON_STRIDE 8`"),
    Row(
        _SEMANTIC,
        "`PanopticFPNSemSegHead` in `SemanticSegmentor`",
        ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NAME", "PanopticFPNSemSegHead"],
    ),
    Row(
        _SEMANTIC,
        "PointRend's semantic head",
        [
            *("MODEL.SEM_SEG_HEAD.NAME", "PointRendSemSegHead", "MODEL.POINT_HEAD.NUM_CLASSES", SEMANTIC_CLASSES),
            *("MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME", "SemSegFPNHead", "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 2),
            *("MODEL.POINT_HEAD.FC_DIM", WIDTH, "MODEL.POINT_HEAD.TRAIN_NUM_POINTS", 64),
        ],
        project="point_rend",
        word=_SCRIPT.format("add_pointrend_config") + "; with as many subdivisions as lead to full size",
    ),
    Row(
        _SEMANTIC,
        "DeepLabV3+'s head",
        [
            *("MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3PlusHead", "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p5"]),
            *("MODEL.SEM_SEG_HEAD.PROJECT_FEATURES", ["p2"], "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [WIDTH]),
            *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", WIDTH, "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [1, 2, 3]),
            *("MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.RESNETS.STEM_TYPE", "basic"),
        ],
        project="deeplab",
        word=_SCRIPT.format("add_deeplab_config"),
    ),
)
"""The table, from top to bottom."""
