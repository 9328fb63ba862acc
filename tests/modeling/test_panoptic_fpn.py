"""The meta-architecture against detectron2's built-in one, with the same weights, and on input that is out of the
ordinary.
"""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from small_models import detectron2_cfg, tiny_cfg

from panoptic_fpn_ext.modeling import HeuristicCombiner, PanopticFPNExt
from panoptic_fpn_ext.structures import RawOutputs

LOSSES = {"loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}


def _enliven(model: torch.nn.Module) -> None:
    """Untrained weights with which a network neither overflows nor finds nothing."""
    generator = torch.Generator().manual_seed(0)
    for name, module in model.backbone.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("conv3.norm"):
            module.weight.fill_(0.2)
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, torch.nn.ModuleList) else [predictors]:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.12, generator=generator)
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.1, generator=generator)
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight, std=0.5, generator=generator)


def _pair(depth: int, **options) -> tuple[torch.nn.Module, torch.nn.Module]:
    models = []
    for name in ("PanopticFPN", "PanopticFPNExt"):
        cfg = detectron2_cfg(name, depth)
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.02
        cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.03
        cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 300
        cfg.merge_from_list([item for pair in options.items() for item in pair])
        models.append(build_model(cfg))
    theirs, ours = models
    _enliven(theirs)
    for source, target in ((theirs, ours), (ours, theirs)):
        keys = target.load_state_dict(source.state_dict(), strict=True)
        assert not keys.missing_keys and not keys.unexpected_keys
    return theirs, ours


def _image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """uint8 (3, height, width) with structure at several scales."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.rand(1, 3, n, n, generator=generator) for n in (3, 9, 40)]
    layers = [torch.nn.functional.interpolate(n, size=(height, width), mode="bicubic") for n in noise]
    return (sum(layers) * 85).clamp(0, 255).byte()[0]


def _training_input(height: int, width: int, boxes: list, labelled: bool = True, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.arange(len(boxes)) % 80
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = torch.rand(y1 - y0, x1 - x0, generator=generator) > 0.2
    instances.gt_masks = BitMasks(masks)
    sem_seg = torch.randint(0, 54, (height // 16 + 1, width // 16 + 1), generator=generator)
    sem_seg = sem_seg.repeat_interleave(16, 0).repeat_interleave(16, 1)[:height, :width].contiguous()
    sem_seg[:20] = 255
    if not labelled:
        sem_seg[:] = 255
    return {"image": _image(height, width, seed), "instances": instances, "sem_seg": sem_seg}


def _losses(model: torch.nn.Module, inputs: list) -> dict[str, torch.Tensor]:
    model.train()
    torch.manual_seed(7)  # proposals are sampled at random
    with EventStorage():
        return model(copy.deepcopy(inputs))


def _assert_same_prediction(theirs: dict, ours: dict) -> None:
    torch.testing.assert_close(ours["sem_seg"], theirs["sem_seg"], rtol=1e-4, atol=1e-4)
    for field in ("scores", "pred_classes"):
        assert torch.equal(ours["instances"].get(field), theirs["instances"].get(field))
    assert torch.equal(ours["instances"].pred_boxes.tensor, theirs["instances"].pred_boxes.tensor)
    (our_map, our_segments), (their_map, their_segments) = ours["panoptic_seg"], theirs["panoptic_seg"]
    assert our_map.dtype == torch.int32
    top = theirs["sem_seg"].topk(2, dim=0).values
    clear = top[0] - top[1] >= 1e-4
    assert torch.equal(our_map[clear], their_map[clear])
    assert [{k: v for k, v in s.items() if k != "area"} for s in our_segments] == [
        {k: v for k, v in s.items() if k != "area"} for s in their_segments
    ]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_same_losses_and_maps_as_the_built_in_model(depth):
    theirs, ours = _pair(depth)
    inputs = [
        _training_input(192, 256, [[10, 20, 90, 120], [50, 60, 200, 180]]),
        _training_input(160, 224, [], seed=1),
        _training_input(224, 160, [[0, 0, 60, 60]], labelled=False, seed=2),
    ]
    expected, losses = _losses(theirs, inputs), _losses(ours, inputs)
    assert set(losses) == LOSSES
    for name in LOSSES:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)

    images = [
        {"image": _image(192, 256), "height": 240, "width": 317},
        {"image": _image(160, 224, 1), "height": 101, "width": 90},
        {"image": _image(224, 160, 2)},
    ]
    for batch in (images, images[:1]):
        with torch.no_grad():
            expected, found = theirs.eval()(copy.deepcopy(batch)), ours.eval()(copy.deepcopy(batch))
        for their_one, our_one in zip(expected, found, strict=True):
            _assert_same_prediction(their_one, our_one)
    assert sum(len(one["instances"]) for one in found) > 5
    assert {s["isthing"] for one in found for s in one["panoptic_seg"][1]} == {True, False}


@pytest.fixture(scope="module")
def r50() -> torch.nn.Module:
    model = build_model(detectron2_cfg("PanopticFPNExt"))
    _enliven(model)
    return model


@pytest.mark.parametrize("thresholds", [(1.1, 300), (0.0, 10**9), (1.1, 10**9)])
def test_no_instance_no_stuff_nothing(r50, thresholds):
    combiner = r50.combiner
    before = combiner.instance_score_threshold, combiner.stuff_area_threshold
    combiner.instance_score_threshold, combiner.stuff_area_threshold = thresholds
    with torch.no_grad():
        panoptic_seg, segments = r50.eval()([{"image": _image(64, 96)}])[0]["panoptic_seg"]
    combiner.instance_score_threshold, combiner.stuff_area_threshold = before
    assert panoptic_seg.unique().tolist() == sorted(
        {s["id"] for s in segments} | set(panoptic_seg.unique().tolist()) & {0}
    )
    if thresholds[0] > 1:
        assert not any(s["isthing"] for s in segments)
    if thresholds[1] == 10**9:
        assert all(s["isthing"] for s in segments)


def test_empty_data(r50):
    """detectron2's own end-to-end case."""
    with torch.no_grad():
        r50.eval()([{"image": torch.rand(3, 200, 250)}, {"image": torch.rand(3, 200, 249)}])
    losses = _losses(r50, [_training_input(64, 96, []), _training_input(64, 95, [])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    half = _losses(r50, [_training_input(64, 96, []), _training_input(64, 95, [[3, 3, 40, 50]])])
    assert all(torch.isfinite(loss) for loss in half.values())


def test_batch_without_a_labelled_pixel(r50):
    r50.zero_grad()
    losses = _losses(r50, [_training_input(64, 96, [[3, 3, 40, 50]], labelled=False)])
    assert losses["loss_sem_seg"] == 0
    losses["loss_sem_seg"].backward()
    assert all(p.grad is None or not p.grad.any() for p in r50.sem_seg_head.parameters())


def test_image_without_semantic_truth_counts_as_unlabelled(r50):
    inputs = _training_input(64, 96, [[3, 3, 40, 50]])
    del inputs["sem_seg"]
    assert _losses(r50, [inputs])["loss_sem_seg"] == 0


def test_training_needs_instances(r50):
    inputs = _training_input(64, 96, [])
    del inputs["instances"]
    with pytest.raises(ValueError, match="'instances'"):
        _losses(r50, [inputs])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_pixels(r50, value):
    with torch.no_grad():
        output = r50.eval()([{"image": torch.full((3, 64, 96), value)}])[0]
    assert len(output["instances"]) == 0
    assert output["panoptic_seg"][0].shape == (64, 96)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_features(r50, value):
    """detectron2's own end-to-end case for the RoI heads."""
    features = {f"p{i}": torch.full((1, 256, 512 >> i, 512 >> i), value) for i in range(2, 7)}
    proposals = Instances((510, 510))
    proposals.proposal_boxes = Boxes(torch.tensor([[10.0, 10, 20, 20]]))
    proposals.objectness_logits = torch.tensor([[1.0]])
    images = ImageList(torch.full((1, 3, 512, 512), value), [(510, 510)])
    detections, _ = r50.eval().roi_heads(images, features, [proposals])
    assert len(detections[0]) == 0


def test_inference_as_in_the_parent(r50):
    inputs = [{"image": _image(64, 96), "height": 32, "width": 48}]
    with torch.no_grad():
        raw = r50.eval().inference(inputs, do_postprocess=False)
        known = Instances((64, 96), pred_boxes=Boxes(torch.tensor([[5.0, 5, 50, 60]])), pred_classes=torch.tensor([3]))
        given = r50.inference(inputs, [known], do_postprocess=False)
        outputs = r50.raw_outputs(inputs)
    assert all(isinstance(x, Instances) and x.pred_masks.shape[-2:] == (28, 28) for x in (*raw, *given))
    assert given[0].pred_boxes.tensor.tolist() == [[5, 5, 50, 60]]
    assert isinstance(outputs, RawOutputs)
    assert outputs.sem_seg_logits.shape == (1, 54, 16, 24)
    assert outputs.image_sizes == [(64, 96)]


def test_detectron2s_test_time_augmentation_accepts_it(r50):
    cfg = detectron2_cfg("PanopticFPNExt")
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (64,), True
    tta = GeneralizedRCNNWithTTA(cfg, r50.eval())
    with torch.no_grad():
        output = tta([{"image": _image(64, 96), "height": 64, "width": 96}])[0]
    assert output["instances"].image_size == (64, 96)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["StandardROIHeads", "CascadeROIHeads"])
def test_instance_loss_weight_is_the_papers(head):
    """λ_i scales classification, box and mask losses, in every stage; RPN and semantic losses stay."""
    losses = {}
    for weight in (1.0, 0.25):
        cfg = detectron2_cfg("PanopticFPNExt")
        cfg.MODEL.ROI_HEADS.NAME = head
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = head == "CascadeROIHeads"
        cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = weight
        torch.manual_seed(0)
        model = build_model(cfg)
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.weight.fill_(0.5)
        losses[weight] = _losses(model, [_training_input(64, 96, [[3, 3, 40, 50]])])
    for name, full in losses[1.0].items():
        factor = 1.0 if name in ("loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc") else 0.25
        torch.testing.assert_close(losses[0.25][name], full * factor, rtol=1e-5, atol=0)
    stages = [name for name in losses[1.0] if name.startswith("loss_cls")]
    assert len(stages) == (3 if head == "CascadeROIHeads" else 1)


def test_a_combiner_for_logits_of_another_stride_is_refused():
    """It would read the labels at other places."""
    arguments = PanopticFPNExt.from_config(tiny_cfg())
    with pytest.raises(ValueError, match="stride 4, the combiner's sem_seg_stride is 2"):
        PanopticFPNExt(**{**arguments, "combiner": HeuristicCombiner(sem_seg_stride=2)})


def test_masks_are_needed():
    cfg = detectron2_cfg("PanopticFPNExt")
    cfg.MODEL.MASK_ON = False
    with pytest.raises(ValueError, match=r"MODEL\.MASK_ON"):
        build_model(cfg)
