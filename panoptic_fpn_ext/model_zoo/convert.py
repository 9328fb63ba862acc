"""Checkpoints of other code bases as checkpoints of this package, each with the config that it needs beside it.

Shapes: T things, S stuff classes, F features.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model

from ..categories import THINGS_AS_OTHER, PanopticCategories
from ..command import command_parser, run_command
from ..engine.checkpoints.model_categories import RECORD, category_record, dataset_source
from ..engine.checkpoints.weight_files import read_weight_file
from ..whole_files import whole_file
from .configs import get_config

__all__ = ["SOURCES", "convert_checkpoint", "main"]

Weights = dict[str, torch.Tensor]


class Source(NamedTuple):
    """A code base whose checkpoints can be converted.

    Attributes:
        model: what can be converted, for people.
        names: patterns of its parameters' names, and ours; numbers in ``{}`` are sums.
        arrange: brings classes into our order.
        config: of our zoo, for the same network.
        options: what its networks do in another way, ``KEY VALUE`` pairs.
        is_panoptic: whether the network has a semantic head.
    """

    model: str
    names: tuple[tuple[str, str], ...]
    arrange: Callable[[Weights], Weights]
    config: str
    options: tuple[Any, ...]
    is_panoptic: bool


# Of torchvision's ResNets, below any prefix.
_RESNET: Final = (
    (r"(?:num_batches_tracked|.*\.num_batches_tracked)", ""),
    (r"conv1\.(\w+)", r"stem.conv1.\1"),
    (r"bn1\.(\w+)", r"stem.conv1.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", r"res{\1+1}.\2.conv\3.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"res{\1+1}.\2.conv\3.norm.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(\w+)", r"res{\1+1}.\2.shortcut.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"res{\1+1}.\2.shortcut.norm.\3"),
)


def _below(prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((prefix + old, f"backbone.bottom_up.{new}" if new else "") for old, new in _RESNET)


def _from_mmdetection(weights: Weights) -> Weights:
    """Its semantic head has "other" after the S stuff classes, ours has it first."""
    for name in ("sem_seg_head.predictor.weight", "sem_seg_head.predictor.bias"):
        weights[name] = weights[name].roll(1, dims=0)
    return weights


def _from_torchvision(weights: Weights) -> Weights:
    """Its classes begin with the background; COCO's have the numbers of the annotations, gaps included."""
    num_classes = len(weights["roi_heads.box_predictor.cls_score.weight"])
    things = _COCO_THINGS if num_classes == 91 else list(range(1, num_classes))
    rows = torch.tensor(things)
    boxes = (4 * rows[:, None] + torch.arange(4)).flatten()
    order = {
        "roi_heads.box_predictor.cls_score": torch.cat([rows, rows.new_zeros(1)]),
        "roi_heads.box_predictor.bbox_pred": boxes,
        "roi_heads.mask_head.predictor": rows,
    }
    for layer, index in order.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            weights[name] = weights[name][index]
    return weights


_COCO_THINGS: Final = [row["id"] for row in COCO_CATEGORIES if row["isthing"]]
_RGB: Final = (
    *("INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], "MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
)

SOURCES: Final = {
    "mmdetection": Source(
        "Panoptic FPN with a ResNet or ResNeXt",
        (
            *_below(r"backbone\."),
            (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"backbone.fpn_lateral{\1+2}.\2"),
            (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"backbone.fpn_output{\1+2}.\2"),
            (r"rpn_head\.rpn_conv\.(\w+)", r"proposal_generator.rpn_head.conv.\1"),
            (r"rpn_head\.rpn_cls\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
            (r"rpn_head\.rpn_reg\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
            (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(\w+)", r"roi_heads.box_head.fc{\1+1}.\2"),
            (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
            (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
            (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)", r"roi_heads.mask_head.mask_fcn{\1+1}.\2"),
            (r"roi_head\.mask_head\.upsample\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
            (r"roi_head\.mask_head\.conv_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
            # Our stages have an upsampling, which has no parameters, after each convolution but the last.
            (
                r"semantic_head\.conv_upsample_layers\.(\d)\.conv\.(\d)\.conv\.(\w+)",
                r"sem_seg_head.p{\1+2}.{\2+\2}.\3",
            ),
            (
                r"semantic_head\.conv_upsample_layers\.(\d)\.conv\.(\d)\.gn\.(\w+)",
                r"sem_seg_head.p{\1+2}.{\2+\2}.norm.\3",
            ),
            (r"semantic_head\.conv_logits\.(\w+)", r"sem_seg_head.predictor.\1"),
        ),
        _from_mmdetection,
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x",
        (*_RGB, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.6),
        is_panoptic=True,
    ),
    "torchvision": Source(
        "maskrcnn_resnet50_fpn",
        (
            *_below(r"backbone\.body\."),
            (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(\w+)", r"backbone.fpn_lateral{\1+2}.\2"),
            (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(\w+)", r"backbone.fpn_output{\1+2}.\2"),
            (r"rpn\.head\.conv\.(?:0\.0\.)?(\w+)", r"proposal_generator.rpn_head.conv.\1"),
            (r"rpn\.head\.cls_logits\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
            (r"rpn\.head\.bbox_pred\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
            (r"roi_heads\.box_head\.fc([67])\.(\w+)", r"roi_heads.box_head.fc{\1-5}.\2"),
            (r"roi_heads\.box_predictor\.(\w+)\.(\w+)", r"roi_heads.box_predictor.\1.\2"),
            (r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", r"roi_heads.mask_head.mask_fcn{\1+1}.\2"),
            (r"roi_heads\.mask_head\.mask_fcn(\d)\.(\w+)", r"roi_heads.mask_head.mask_fcn\1.\2"),
            (r"roi_heads\.mask_predictor\.conv5_mask\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
            (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
        ),
        _from_torchvision,
        "COCO-PanopticSegmentation/mask_rcnn_R_50_FPN_1x",
        (
            *(*_RGB, "MODEL.ANCHOR_GENERATOR.NAME", "RoundedAnchorGenerator"),
            *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
            *("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
        ),
        is_panoptic=False,
    ),
}
"""By name of the code base."""


def convert_checkpoint(source: str, state_dict: Mapping[str, Any], *, caffe: bool = False) -> tuple[Weights, CfgNode]:
    """Parameters under our names, classes in our order, and the config that belongs to them.

    Args:
        source: one of :data:`SOURCES`.
        state_dict: the code base's names and tensors.
        caffe: whether the ResNet is one of Caffe's: BGR pixels, not divided, and strides in its 1×1 convolutions.

    Raises:
        ValueError: a parameter that the converted network does not have, or one that is missing.
    """
    of = SOURCES[source]
    renamed = {name: _renamed(name, of) for name in state_dict}
    unknown = [name for name, new in renamed.items() if new is None]
    if unknown:
        raise ValueError(
            f"What can be converted from {source} is {of.model}; {len(unknown)} parameters are not of it: "
            f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}."
        )
    weights = {new: torch.as_tensor(state_dict[name]) for name, new in renamed.items() if new}
    missing = {"roi_heads.box_predictor.cls_score.weight", "roi_heads.mask_head.predictor.weight"} - set(weights)
    missing |= {"sem_seg_head.predictor.weight"} - set(weights) if of.is_panoptic else set()
    if missing:
        raise ValueError(f"This is no checkpoint of {source}'s {of.model}: it has nothing for {', '.join(missing)}.")
    weights = of.arrange(weights)
    cfg = _config(of, weights, caffe)
    _check_complete(weights, cfg, source)
    return weights, cfg


def _renamed(name: str, source: Source) -> str | None:
    """Our name, empty for what we do not have, None for what we do not know."""
    for pattern, new in source.names:
        found = re.fullmatch(pattern, name)
        if found:
            return re.sub(r"\{(\d+)([+-])(\d+)\}", _sum, found.expand(new))
    return None


def _sum(found: re.Match[str]) -> str:
    return str(int(found[1]) + int(found[3]) * (1 if found[2] == "+" else -1))


def _config(source: Source, weights: Weights, caffe: bool) -> CfgNode:
    cfg = get_config(source.config)
    cfg.merge_from_list(list(source.options))
    if caffe:
        cfg.merge_from_list(["INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]])
        cfg.merge_from_list(["MODEL.PIXEL_STD", [1.0, 1.0, 1.0], "MODEL.RESNETS.STRIDE_IN_1X1", True])
    blocks = {int(name.split(".")[3]) for name in weights if name.startswith("backbone.bottom_up.res4.")}
    kernel = weights.get("backbone.bottom_up.res2.0.conv2.weight", torch.empty(64, 64))
    groups = kernel.shape[0] // kernel.shape[1]
    cfg.MODEL.RESNETS.DEPTH = {6: 50, 23: 101, 36: 152}.get(len(blocks), cfg.MODEL.RESNETS.DEPTH)
    cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = groups, kernel.shape[0] // groups
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(weights["roi_heads.mask_head.predictor.weight"])
    if source.is_panoptic:
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(weights["sem_seg_head.predictor.weight"])
    return cfg


def _check_complete(weights: Weights, cfg: CfgNode, source: str) -> None:
    """``ValueError`` where the network of the config has other parameters."""
    shaped = cfg.clone()
    shaped.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        own = {name: value.shape for name, value in build_model(shaped).state_dict().items()}
    wrong = {name for name in {*own, *weights} if name not in weights or own.get(name) != weights[name].shape}
    wrong -= {"pixel_mean", "pixel_std"}
    if wrong:
        raise ValueError(
            f"The checkpoint is not of {source}'s {SOURCES[source].model}: {len(wrong)} parameters are missing, or of "
            f"another shape, among them {', '.join(sorted(wrong)[:5])}."
        )


def _categories(cfg: CfgNode, is_panoptic: bool) -> PanopticCategories | None:
    """COCO's as detectron2 names them, where the heads have its sizes; of a detector its things."""
    coco = dataset_source("coco_2017_val_panoptic_separated").categories
    sizes = [(cfg.MODEL.ROI_HEADS.NUM_CLASSES, coco.num_things)]
    sizes += [(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, coco.num_sem_seg_classes)] if is_panoptic else []
    if any(ours != theirs for ours, theirs in sizes):
        return None
    return coco if is_panoptic else PanopticCategories([row for row in coco.rows if row["isthing"]], THINGS_AS_OTHER)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    models = "; ".join(f"{name}: {source.model}" for name, source in SOURCES.items())
    parser = command_parser(
        f"Convert a checkpoint of another code base ({models}): FOLDER gets model.pth and config.yaml.",
        "python -m panoptic_fpn_ext.model_zoo convert mmdetection panoptic_fpn_r50_fpn_1x_coco.pth converted\n"
        "python projects/panoptic_fpn/demo.py --config-file converted/model.pth --input photos/ --output overlays",
        prog="python -m panoptic_fpn_ext.model_zoo convert",
    )
    parser.add_argument("source", choices=list(SOURCES), help="whose checkpoint it is")
    parser.add_argument("checkpoint", metavar="FILE", help="its file")
    parser.add_argument("folder", metavar="FOLDER", help="where the two files go")
    parser.add_argument(
        "--caffe", action="store_true", help="its ResNet is one of Caffe's: BGR pixels, strides in 1×1 convolutions"
    )
    args = parser.parse_args(arguments)
    content = read_weight_file(args.checkpoint)
    state_dict = content.get("state_dict", content.get("model", content))
    weights, cfg = convert_checkpoint(args.source, state_dict, caffe=args.caffe)
    categories = _categories(cfg, SOURCES[args.source].is_panoptic)
    record = {RECORD: category_record(categories)} if categories else {}
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(str(folder / "model.pth"), "wb") as file:
        torch.save({"model": weights, "__author__": args.source, **record}, file)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(folder / "model.pth"), str(folder)
    (folder / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    print(f"{len(weights)} parameters are in {folder / 'model.pth'}, their config beside it.")  # noqa: T201


if __name__ == "__main__":
    run_command(main)
