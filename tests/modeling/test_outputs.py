"""``MODEL.PANOPTIC_FPN.OUTPUTS``: what a model returns, and that nothing else is computed."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import StandardROIHeads, build_model
from places import REPOSITORY

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.modeling import DINCombiner, HeuristicCombiner, combine_built_in

CONFIG = REPOSITORY / "configs/Base-Panoptic-FPN.yaml"
SMALL = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"]
SMALL += ["MODEL.WEIGHTS", "", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.RPN.CONV_DIMS", [32]]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32]
SMALL += ["MODEL.ROI_HEADS.NUM_CLASSES", 4, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 8, "TEST.DETECTIONS_PER_IMAGE", 20]
ALL = ["panoptic_seg", "instances", "sem_seg"]


def _cfg(*options: object) -> CfgNode:
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list([*SMALL, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, *options])
    return cfg


def _inputs() -> list[dict]:
    """Two images of different sizes."""
    sizes = [(64, 96, 50, 80), (96, 64, 120, 90)]
    return [{"image": torch.rand(3, h, w) * 255, "height": height, "width": width} for h, w, height, width in sizes]


def _build(*options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(_cfg(*options)).eval()
    # Untrained masks are 0.5 everywhere, where rounding decides.
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=5)
    return model


def _predict(model: torch.nn.Module, inputs: list[dict], outputs: list[str], threshold: float) -> list[dict]:
    model.outputs, model.combiner.instance_score_threshold = frozenset(outputs), threshold
    model.combiner.stuff_area_threshold = 1
    with torch.no_grad():
        return model(inputs)


def _median_score(model: torch.nn.Module, inputs: list[dict]) -> float:
    with torch.no_grad():
        scores = torch.cat([instances.scores for instances in model.raw_outputs(inputs).instances])
    return float(scores.median())


@pytest.fixture(scope="module", params=["StandardROIHeads", "CascadeROIHeads"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return _build("MODEL.ROI_HEADS.NAME", request.param, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)


def test_all_outputs_by_default():
    assert _build().outputs == frozenset(ALL)


@pytest.mark.parametrize("outputs", [[name] for name in ALL] + [["instances", "sem_seg"], ALL[:2]])
def test_each_output_is_the_same_without_the_others(model, outputs):
    inputs = _inputs()
    threshold = _median_score(model, inputs)
    complete = _predict(model, inputs, ALL, threshold)
    for some, all_of_them in zip(_predict(model, inputs, outputs, threshold), complete, strict=True):
        assert some.keys() == set(outputs)
        for name in outputs:
            _assert_equal(some[name], all_of_them[name])


def _assert_equal(a: object, b: object) -> None:
    """Equal outputs, up to what the batch size of the mask branch changes by rounding."""
    if isinstance(a, tuple):
        assert (a[0] != b[0]).float().mean() < 1e-3
        things, expected = ([segment for segment in found[1] if segment["isthing"]] for found in (a, b))
        assert expected
        assert things == expected
        assert len(a[1]) == len(b[1])
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b)
    else:
        assert (a.pred_masks != b.pred_masks).float().mean() < 1e-3


def test_labels_in_place_of_logits(model):
    inputs = _inputs()
    complete = _predict(model, inputs, [*ALL, "sem_seg_labels"], 0.5)
    alone = _predict(model, inputs, ["sem_seg_labels"], 0.5)
    for all_of_them, some in zip(complete, alone, strict=True):
        labels = all_of_them["sem_seg_labels"]
        assert labels.dtype == torch.int32 and torch.equal(labels, some["sem_seg_labels"])
        logits = all_of_them["sem_seg"].double()
        assert (logits.max(dim=0).values - logits.gather(0, labels[None].long())[0]).max() < 1e-4


def test_outputs_of_an_image_outlive_the_next_one(model):
    inputs = _inputs()[:1]
    first = _predict(model, inputs, ALL, 0.5)[0]
    logits, masks = first["sem_seg"].clone(), first["instances"].pred_masks.clone()
    _predict(model, [{**inputs[0], "image": 255 - inputs[0]["image"]}], ALL, 0.5)
    assert torch.equal(first["sem_seg"], logits) and torch.equal(first["instances"].pred_masks, masks)


def test_our_combiners_on_the_built_in_model():
    model = _build("MODEL.META_ARCHITECTURE", "PanopticFPN")
    model.combine_instances_score_thresh, model.combine_stuff_area_thresh = 0.2, 1
    inputs = _inputs()
    with torch.no_grad():
        expected = [output["panoptic_seg"] for output in model(inputs)]
    combiner = HeuristicCombiner(sem_seg_stride=1, stuff_area_threshold=1, instance_score_threshold=0.2)
    for found, (panoptic_seg, segments) in zip(combine_built_in(model, inputs, combiner), expected, strict=True):
        assert (found.panoptic_seg != panoptic_seg).float().mean() < 1e-3
        assert [s["category_id"] for s in found.segments_info] == [s["category_id"] for s in segments]
    din = DINCombiner(sem_seg_stride=1, stuff_area_threshold=1, instance_score_threshold=0.2)
    assert all(found.segments_info for found in combine_built_in(model, inputs, din))
    with pytest.raises(ValueError, match="sem_seg_stride is 4"):
        combine_built_in(model, inputs, HeuristicCombiner())


def test_masks_only_for_what_can_enter_the_map(model, monkeypatch):
    inputs = _inputs()
    threshold = _median_score(model, inputs)
    with torch.no_grad():
        scores = [instances.scores for instances in model.raw_outputs(inputs).instances]
    asked: list[int] = []
    forward = type(model.roi_heads)._forward_mask

    def count(self, features, instances):
        asked.extend(len(one) for one in instances)
        return forward(self, features, instances)

    monkeypatch.setattr(type(model.roi_heads), "_forward_mask", count)
    _predict(model, inputs, ["panoptic_seg"], threshold)
    assert asked == [int((one >= threshold).sum()) for one in scores]
    assert sum(asked) < sum(map(len, scores))


def test_no_detection_reaches_the_map(model):
    (prediction,) = _predict(model, _inputs()[:1], ["panoptic_seg"], 2.0)
    assert not any(segment["isthing"] for segment in prediction["panoptic_seg"][1])


class _OtherHeads(StandardROIHeads):
    def forward(self, images, features, proposals, targets=None):
        instances, losses = super().forward(images, features, proposals, targets)
        for one in instances:
            one.scores = one.scores * 0 + 0.5
        return instances, losses


def test_other_roi_heads_run_as_they_are():
    model, inputs = _build(), _inputs()
    model.roi_heads.__class__ = _OtherHeads
    complete = _predict(model, inputs, ALL, 0.5)
    for some, all_of_them in zip(_predict(model, inputs, ["panoptic_seg"], 0.5), complete, strict=True):
        _assert_equal(some["panoptic_seg"], all_of_them["panoptic_seg"])


def test_only_what_is_asked_for_is_computed(model, monkeypatch):
    monkeypatch.setattr(model, "_detect", None)
    _predict(model, _inputs(), ["sem_seg"], 0.5)
    monkeypatch.undo()
    monkeypatch.setattr(model, "sem_seg_head", None)
    _predict(model, _inputs(), ["instances"], 0.5)


@pytest.mark.parametrize("outputs", [[], ["panoptic"], ["instances", "masks"]])
def test_unknown_outputs_are_refused(outputs):
    with pytest.raises(ValueError, match="OUTPUTS must name some of"):
        _build("MODEL.PANOPTIC_FPN.OUTPUTS", outputs)


def test_the_key_reaches_the_model():
    assert _build("MODEL.PANOPTIC_FPN.OUTPUTS", ["panoptic_seg"]).outputs == {"panoptic_seg"}


def test_the_combiner_of_a_name_gets_the_image():
    torch.manual_seed(0)
    combine = "MODEL.PANOPTIC_FPN.COMBINE."
    keys = [f"{combine}NAME", "DINCombiner", f"{combine}DIN_WEIGHTS", [1, 2, 1, 0, 4], f"{combine}OVERLAP_THRESH", 1.0]
    model = _build(*keys)
    assert model.combiner.weights == (1, 2, 1, 0, 4) and model.combiner.overlap_threshold == 1
    inputs = _inputs()
    for outputs, given in zip(_predict(model, inputs, ALL, _median_score(model, inputs)), inputs, strict=True):
        panoptic_seg, segments = outputs["panoptic_seg"]
        assert panoptic_seg.shape == (given["height"], given["width"])
        assert set(panoptic_seg.unique().tolist()) - {0} == {segment["id"] for segment in segments}
        assert any(segment["isthing"] for segment in segments)
