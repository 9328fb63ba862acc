"""Half, bfloat16, double, autocast, `torch.compile`: results as those of float32 up to the precision, or a refusal."""

import copy

import config_files
import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.modeling.acceleration.roi_align import GatheringROIAlign, TrainingROIAlign

ARCHITECTURES = ("PanopticFPNExt", "SeparatePanopticNetworks")
# Largest difference of the semantic logits, of their largest value.
TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.06}


def _model(architecture: str):
    torch.manual_seed(0)
    cfg = tiny_cfg(architecture)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 10
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    combine.INSTANCES_CONFIDENCE_THRESH, combine.STUFF_AREA_LIMIT = 0.05, 1
    return build_model(cfg).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return _model(request.param)


def _predict(model, batch=None):
    with torch.no_grad():
        return model(batch or tiny_batch())


def _check_close(found: list[dict], expected: list[dict], dtype: torch.dtype) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        ours_logits, logits = ours["sem_seg"].float(), theirs["sem_seg"]
        assert (ours_logits - logits).abs().max() < TOLERANCE[dtype] * logits.abs().max()
        agree = ours_logits.argmax(0) == logits.argmax(0)
        assert agree.float().mean() > 0.9
        # Random weights give many scores that are nearly the same: of the boxes, the first few must be found again.
        boxes, scores = ours["instances"].pred_boxes.tensor.float(), ours["instances"].scores.float()
        assert scores[0] == pytest.approx(theirs["instances"].scores[0].item(), rel=0.1)
        assert torch.isfinite(boxes).all()
        assert ours["panoptic_seg"][0].dtype == torch.int32


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision(model, optimized, dtype, how):
    expected = _predict(model)
    reduced = optimize_for_inference(model) if optimized else copy.deepcopy(model)
    if how == "weights":
        found = _predict(reduced.to(dtype))
    else:
        with torch.autocast("cpu", dtype=dtype):
            found = _predict(reduced)
    _check_close(found, expected, dtype)


def test_back_to_float_is_as_before(model):
    reduced = copy.deepcopy(model).bfloat16().float()
    for name, parameter in model.named_parameters():
        reduced.get_parameter(name).data.copy_(parameter)
    for name, buffer in model.named_buffers():
        reduced.get_buffer(name).copy_(buffer)
    for found, expected in zip(_predict(reduced), _predict(model), strict=True):
        assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])


def test_raw_outputs_and_given_boxes_in_half_precision(model):
    reduced, batch = copy.deepcopy(model).half(), tiny_batch()
    with torch.no_grad():
        raw = reduced.raw_outputs(batch)
        again = reduced.inference(batch, detected_instances=raw.instances)
    assert len(raw.instances) == len(again) == 2


@pytest.mark.parametrize("optimized", [False, True])
def test_double_is_refused_by_name(model, optimized):
    double = (optimize_for_inference(model) if optimized else copy.deepcopy(model)).double()
    with pytest.raises(ValueError, match=r"torch\.float64.*model\.float\(\)"):
        _predict(double)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_other_precisions_are_not_trained(model, dtype):
    with EventStorage(), pytest.raises(ValueError, match=r"has weights of .*model\.float\(\)"):
        copy.deepcopy(model).to(dtype).train()(tiny_batch())


def test_training_with_autocast(model):
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        one = copy.deepcopy(model).train()
        with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = one(tiny_batch())
        sum(found.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)
        losses.append({name: loss.item() for name, loss in found.items()})
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.02)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", [GatheringROIAlign, TrainingROIAlign])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_coordinates_are_not_rounded(layer, dtype, training):
    features = torch.arange(256.0).expand(1, 1, 8, 256).contiguous()  # says where it is looked at
    rois = torch.tensor([[0, 804.0, 4.0, 836.0, 28.0], [0, 517.0, 8.0, 533.0, 24.0]])
    expected = ROIAlign((2, 2), 0.25, 2)(features, rois)
    found = layer((2, 2), 0.25, 2).train(training)(features.to(dtype), rois)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= 0.51  # the result's own rounding


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [False, True])
def test_compiled_models_predict_the_same(optimized):
    """With the eager backend: what matters is what is captured, and that the rest is left to Python."""
    torch._dynamo.reset()
    model = _narrow_model()
    model = optimize_for_inference(model) if optimized else model
    compiled = torch.compile(model, backend="eager")
    for batch in (tiny_batch(), tiny_batch(((80, 112),))):
        for found, expected in zip(_predict(compiled, batch), _predict(model, batch), strict=True):
            torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found["instances"].scores, expected["instances"].scores)
            assert (found["panoptic_seg"][0] == expected["panoptic_seg"][0]).float().mean() > 0.99


@pytest.mark.slow
def test_compiled_models_train_the_same():
    torch._dynamo.reset()
    losses = []
    for compiled in (False, True):
        model = _narrow_model().train()
        torch.manual_seed(1)
        with EventStorage():
            found = (torch.compile(model, backend="eager") if compiled else model)(tiny_batch())
        sum(found.values()).backward()
        losses.append(
            [*(loss.item() for loss in found.values()), model.sem_seg_head.predictor.weight.grad.sum().item()]
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def _narrow_model():
    """ResNet-18, which takes less time to compile."""
    torch.manual_seed(0)
    cfg = config_files.load("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = "cpu", 0.0, 10
    return build_model(cfg).eval()
