"""Graphs that are captured on one image and run on others, against the eager model."""

import warnings
from typing import Any

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis
from small_models import tiny_cfg, untied

from panoptic_fpn_ext import optimize_for_inference

SIZES = ((64, 96), (96, 64), (70, 130), (33, 47))


def _model(*options: object, architecture: str = "PanopticFPNExt") -> Any:
    cfg = tiny_cfg(architecture)
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 10, *options])
    torch.manual_seed(0)
    return untied(build_model(cfg).eval())


def _image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(height)) * 255


def _tensors(model: Any, inputs: list[dict]) -> Any:
    """What a trace can return: all but the list of segments."""
    (result,) = model.inference(inputs)
    instances = result["instances"]
    return result["sem_seg"], instances.pred_boxes.tensor, instances.scores, instances.pred_masks


def _traced(model: Any, image: torch.Tensor, inference: Any = _tensors) -> Any:
    adapter = TracingAdapter(model, [{"image": image}], inference)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, about detectron2's shapes
        return torch.jit.trace(adapter, (image,), check_trace=False)


def _assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        if other.dtype == torch.bool:
            assert one.shape == other.shape and (one != other).float().mean() < 1e-3
        else:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("architecture", "is_optimized"),
    [("PanopticFPNExt", False), ("SeparatePanopticNetworks", False), ("PanopticFPNExt", True)],
)
def test_a_trace_serves_images_of_other_sizes(architecture, is_optimized):
    model = _model("MODEL.PANOPTIC_FPN.OUTPUTS", ["sem_seg", "instances"], architecture=architecture)
    traced = _traced(optimize_for_inference(model) if is_optimized else model, _image(*SIZES[0]))
    for size in SIZES:
        with torch.no_grad():
            found, expected = traced(_image(*size)), _tensors(model, [{"image": _image(*size)}])
        # Rounding can change which boxes of an optimised model suppress which.
        _assert_close(found[:1] if is_optimized else found, expected[:1] if is_optimized else expected)


def test_multiply_adds_of_the_whole_model_are_counted():
    """`FlopCountAnalysis` traces the model, the combiner included, and counts as much as for detectron2's."""
    image = [{"image": _image(64, 96), "height": 64, "width": 96}]
    counted = {}
    for architecture in ("PanopticFPNExt", "PanopticFPN"):
        analysis = FlopCountAnalysis(_model(architecture=architecture), image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counted[architecture] = analysis.by_operator()["conv"]
    assert counted["PanopticFPNExt"] == counted["PanopticFPN"] > 0
