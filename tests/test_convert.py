"""Checkpoints of other code bases: names and shapes as they have them, classes in our order, equal outputs."""

import pytest
import torch
from detectron2.modeling import build_model

from panoptic_fpn_ext.engine.checkpoints.checkpoint import recorded_source
from panoptic_fpn_ext.engine.setup import load_prediction_config
from panoptic_fpn_ext.model_zoo.__main__ import main
from panoptic_fpn_ext.model_zoo.convert import _COCO_THINGS, convert_checkpoint

BLOCKS = (3, 4, 6, 3)


def _norm(name: str, width: int) -> dict[str, torch.Size]:
    parts = {part: torch.Size([width]) for part in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.{part}": shape for part, shape in {**parts, "num_batches_tracked": torch.Size([])}.items()}


def _layer(name: str, *shape: int) -> dict[str, torch.Size]:
    return {f"{name}.weight": torch.Size(shape), f"{name}.bias": torch.Size(shape[:1])}


def _resnet(prefix: str, blocks: tuple[int, ...], groups: int) -> dict[str, torch.Size]:
    shapes = {f"{prefix}conv1.weight": torch.Size([64, 3, 7, 7]), **_norm(f"{prefix}bn1", 64)}
    inputs = 64
    for stage, count in enumerate(blocks):
        outputs, width = 256 * 2**stage, 64 * 2**stage * (2 if groups > 1 else 1)
        for block in range(count):
            name = f"{prefix}layer{stage + 1}.{block}"
            kernels = ((width, inputs, 1, 1), (width, width // groups, 3, 3), (outputs, width, 1, 1))
            for k, kernel in enumerate(kernels, start=1):
                shapes |= {f"{name}.conv{k}.weight": torch.Size(kernel), **_norm(f"{name}.bn{k}", kernel[0])}
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = torch.Size([outputs, inputs, 1, 1])
                shapes |= _norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    return shapes


def _mmdetection(blocks: tuple[int, ...] = BLOCKS, groups: int = 1) -> dict[str, torch.Tensor]:
    """Of ``panoptic_fpn_r50_fpn_1x_coco`` and its kin, zeros."""
    shapes = _resnet("backbone.", blocks, groups)
    for i in range(4):
        shapes |= _layer(f"neck.lateral_convs.{i}.conv", 256, 256 * 2**i, 1, 1)
        shapes |= _layer(f"neck.fpn_convs.{i}.conv", 256, 256, 3, 3)
        shapes |= _layer(f"roi_head.mask_head.convs.{i}.conv", 256, 256, 3, 3)
        for j in range(max(i, 1)):
            name = f"semantic_head.conv_upsample_layers.{i}.conv.{j}"
            shapes[f"{name}.conv.weight"] = torch.Size([128, 128 if j else 256, 3, 3])
            shapes |= _layer(f"{name}.gn", 128)
    shapes |= _layer("rpn_head.rpn_conv", 256, 256, 3, 3)
    shapes |= _layer("rpn_head.rpn_cls", 3, 256, 1, 1) | _layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    shapes |= _layer("roi_head.bbox_head.shared_fcs.0", 1024, 12544)
    shapes |= _layer("roi_head.bbox_head.shared_fcs.1", 1024, 1024)
    shapes |= _layer("roi_head.bbox_head.fc_cls", 81, 1024) | _layer("roi_head.bbox_head.fc_reg", 320, 1024)
    shapes |= _layer("roi_head.mask_head.upsample", 256, 256, 2, 2)
    shapes |= _layer("roi_head.mask_head.conv_logits", 80, 256, 1, 1)
    shapes |= _layer("semantic_head.conv_logits", 54, 128, 1, 1)
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_mmdetection_names_classes_and_pixels():
    theirs = _mmdetection()
    theirs["semantic_head.conv_logits.bias"] = torch.arange(54.0)
    theirs["roi_head.bbox_head.fc_cls.bias"] = torch.arange(81.0)
    theirs["semantic_head.conv_upsample_layers.3.conv.2.gn.weight"] += 5
    theirs["backbone.layer4.2.bn3.running_var"] += 7
    weights, cfg = convert_checkpoint("mmdetection", theirs)
    assert weights["sem_seg_head.predictor.bias"].tolist() == [53, *range(53)]  # "other" first
    assert weights["roi_heads.box_predictor.cls_score.bias"].tolist() == list(range(81))  # background stays last
    assert weights["sem_seg_head.p5.4.norm.weight"].unique().item() == 5
    assert weights["backbone.bottom_up.res5.2.conv3.norm.running_var"].unique().item() == 7
    assert cfg.INPUT.FORMAT == "RGB" and cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == (50, False)
    caffe = convert_checkpoint("mmdetection", theirs, caffe=True)[1]
    assert caffe.INPUT.FORMAT == "BGR" and caffe.MODEL.PIXEL_STD == [1, 1, 1] and caffe.MODEL.RESNETS.STRIDE_IN_1X1


@pytest.mark.parametrize(("blocks", "groups", "depth"), [((3, 4, 23, 3), 32, 101)])
def test_mmdetection_depths_and_groups(blocks, groups, depth):
    cfg = convert_checkpoint("mmdetection", _mmdetection(blocks, groups))[1]
    assert (depth, groups) == (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NUM_GROUPS)


def test_what_is_another_network_is_refused():
    theirs = _mmdetection()
    for name in ("neck.downsample_convs.0.conv.weight", "backbone.layer2.0.conv2_offset.weight", "query_embed.weight"):
        with pytest.raises(ValueError, match=rf"1 parameters are not of it: {name}"):
            convert_checkpoint("mmdetection", {**theirs, name: torch.zeros(1)})
    for name in ("semantic_head.conv_logits.weight", "neck.fpn_convs.2.conv.bias"):
        with pytest.raises(ValueError, match=r"mmdetection's Panoptic FPN"):
            convert_checkpoint("mmdetection", {key: value for key, value in theirs.items() if key != name})
    with pytest.raises(ValueError, match="are not of it"):
        convert_checkpoint("torchvision", theirs)


def _torchvision(**options):
    """Mask R-CNN with statistics, and heads that find something."""
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **options).eval()
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.constant_(module.weight, 0.3 if name.endswith("bn3") else 1)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.05)
    with torch.no_grad():  # classes that do not exist have no score, as in the trained network
        model.roi_heads.box_predictor.cls_score.bias[[i for i in range(1, 91) if i not in _COCO_THINGS]] = -100
    torch.nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.1)
    return model


@pytest.mark.slow
def test_torchvisions_mask_rcnn_finds_the_same():
    theirs = _torchvision(min_size=96, max_size=160, box_score_thresh=0.02, box_detections_per_img=20)
    weights, cfg = convert_checkpoint("torchvision", theirs.state_dict())
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = "cpu", 0.02, 20
    ours = build_model(cfg).eval()
    ours.load_state_dict(weights, strict=False)
    image = torch.randint(0, 256, (3, 96, 160)).float()
    masks = []
    theirs.roi_heads.mask_predictor.register_forward_hook(lambda module, inputs, output: masks.append(output))
    with torch.no_grad():
        (expected,), (found,) = theirs([image / 255]), ours.inference([{"image": image}], do_postprocess=False)
    labels = expected["labels"].tolist()
    assert len(labels) >= 3
    for k in range(len(labels)):
        same = (found.pred_boxes.tensor - expected["boxes"][k]).abs().amax(dim=1) < 1e-2
        same &= found.pred_classes == _COCO_THINGS.index(labels[k])
        assert same.sum() == 1, k
        torch.testing.assert_close(found.scores[same][0], expected["scores"][k], rtol=1e-3, atol=1e-5)
        mask = masks[0][k, labels[k]].sigmoid()
        torch.testing.assert_close(found.pred_masks[same][0, 0], mask, rtol=0, atol=1e-3)


@pytest.mark.parametrize("old_names", [False, True])
def test_torchvision_names_and_classes(old_names):
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.device("meta"):
        model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    theirs = {name: torch.zeros(value.shape) for name, value in model.state_dict().items()}
    theirs["roi_heads.box_predictor.cls_score.bias"] = torch.arange(91.0)
    theirs["roi_heads.box_predictor.bbox_pred.bias"] = torch.arange(364.0)
    if old_names:  # of the published file
        changes = [("blocks.0.0.", "blocks.0."), ("blocks.3.0.", "blocks.3."), ("rpn.head.conv.0.0.", "rpn.head.conv.")]
        changes += [("mask_head.0.0.", "mask_head.mask_fcn1.")]
        for old, new in changes:
            theirs = {name.replace(old, new): value for name, value in theirs.items()}
    weights, cfg = convert_checkpoint("torchvision", theirs)
    order = weights["roi_heads.box_predictor.cls_score.bias"].tolist()
    assert (order[0], order[11], order[79], order[80]) == (1, 13, 90, 0)  # person, stop sign, toothbrush, background
    assert weights["roi_heads.box_predictor.bbox_pred.bias"][44:48].tolist() == [52, 53, 54, 55]
    assert cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE == "ROIAlign" and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80


def test_command_writes_a_checkpoint_with_its_config(tmp_path, capsys):
    theirs = tmp_path / "panoptic_fpn_r50_fpn_1x_coco.pth"
    torch.save({"meta": {"epoch": 12, "CLASSES": ["person"]}, "state_dict": _mmdetection()}, theirs)
    main(["convert", "mmdetection", str(theirs), str(tmp_path / "converted")])
    assert "model.pth" in capsys.readouterr().out
    cfg = load_prediction_config(str(tmp_path / "converted" / "model.pth"), [], [])
    assert cfg.INPUT.FORMAT == "RGB" and cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH == 0.6
    source = recorded_source(cfg.MODEL.WEIGHTS)
    assert (source.categories.num_things, source.categories.num_stuff) == (80, 53)
