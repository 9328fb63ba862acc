"""Test-time augmentation, against detectron2's own and against averages that are easy to see."""

import copy
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.evaluation import inference_context
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA
from small_models import tiny_cfg

from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.modeling import PanopticFPNWithTTA
from panoptic_fpn_ext.modeling.outputs import POSSIBLE_OUTPUTS
from panoptic_fpn_ext.modeling.postprocessing import sem_seg_logits_of_rows, upsample_sem_seg_logits
from panoptic_fpn_ext.modeling.test_time_views import Views


def _cfg(sizes: tuple[int, ...], flip: bool = False, max_size: int = 200, **options: Any) -> CfgNode:
    cfg = tiny_cfg(options.pop("architecture", "PanopticFPNExt"))
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = sizes, max_size, flip
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.3
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 16
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    return cfg


def _model(cfg: CfgNode) -> Any:
    """With weights at which an untrained network finds things and stuff."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(0.5)
    with torch.no_grad():
        predictors = [
            model.roi_heads.box_predictor,
            *([model.sem_seg_head.predictor] if hasattr(model, "sem_seg_head") else []),
        ]
        for parameter in itertools.chain.from_iterable(module.parameters() for module in predictors):
            parameter.mul_(20).add_(torch.randn_like(parameter) * 0.3)
    return model


def _image(height: int, width: int, symmetric: bool = False) -> torch.Tensor:
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return torch.maximum(image, image.flip(-1)) if symmetric else image


def _input(height: int, width: int, image: torch.Tensor) -> dict[str, Any]:
    return {"image": image, "height": height, "width": width}


@pytest.mark.parametrize("architecture", ["PanopticFPNExt", "SeparatePanopticNetworks"])
def test_one_view_is_the_plain_result(architecture):
    cfg = _cfg((64,), architecture=architecture)
    model = _model(cfg)
    image = _image(64, 90)
    with torch.no_grad():
        (plain,), (found,) = (f([_input(50, 71, image)]) for f in (model, PanopticFPNWithTTA(cfg, model)))
    assert torch.equal(found["panoptic_seg"][0], plain["panoptic_seg"][0])
    assert found["panoptic_seg"][1] == plain["panoptic_seg"][1]
    assert {s["isthing"] for s in plain["panoptic_seg"][1]} == {True, False}
    assert torch.equal(found["sem_seg"], plain["sem_seg"])
    assert torch.equal(found["instances"].pred_masks, plain["instances"].pred_masks)


@pytest.mark.parametrize("output_size", [(50, 71), (150, 213)])  # less and more than the network sees
def test_equal_views_are_the_plain_result(output_size):
    """The general way, with nothing to gain: the same up to rounding."""
    cfg = _cfg((64, 64))
    model = _model(cfg)
    inputs = [_input(*output_size, _image(64, 90))]
    plain, found = model(inputs)[0], PanopticFPNWithTTA(cfg, model)(inputs)[0]
    agreement = (found["panoptic_seg"][0] == plain["panoptic_seg"][0]).float().mean()
    assert agreement > 0.999
    torch.testing.assert_close(found["instances"].scores, plain["instances"].scores)
    labels, plain_labels = found["sem_seg"].argmax(dim=0), plain["sem_seg"].argmax(dim=0)
    assert (labels == plain_labels).float().mean() > 0.999
    assert found["sem_seg"].shape == plain["sem_seg"].shape


@pytest.mark.parametrize("width", [91, 96])
def test_flips_of_a_symmetric_image_give_symmetric_probabilities(width):
    cfg = _cfg((48, 64), flip=True)
    model = _model(cfg)
    inputs = [_input(64, width, _image(64, width, symmetric=True))]
    found, plain = (f(inputs)[0]["sem_seg"] for f in (PanopticFPNWithTTA(cfg, model), model))
    assert torch.allclose(found, found.flip(-1), atol=1e-4)
    assert not torch.allclose(plain, plain.flip(-1), atol=1e-2)


@pytest.mark.parametrize("width", [95, 96])
def test_flips_of_a_symmetric_image_give_a_symmetric_map(width, small_street):
    """Things too, among them one on the axis, whose two boxes have the same score."""
    model = PanopticPredictor("SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow").model
    tta = PanopticFPNWithTTA(model=model, tta_mapper=Views(min_sizes=(128, 160), max_size=400, flip=True))
    kinds = set()
    for path in sorted((small_street / "val").iterdir()):
        image = torch.from_numpy(cv2.imread(str(path))[:, :width].transpose(2, 0, 1).copy())
        image[:, :, -(width // 2) :] = image[:, :, : width // 2].flip(-1)
        panoptic_seg, segments = tta([{"image": image}])[0]["panoptic_seg"]
        kinds |= {s["isthing"] for s in segments}
        classes = torch.tensor([0, *(1 + s["category_id"] + 100 * s["isthing"] for s in segments)])[panoptic_seg.long()]
        assert torch.equal(classes, classes.flip(-1))
    assert kinds == {True, False}


def test_instances_are_detectron2s():
    cfg = _cfg((48, 64), flip=True)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.5, 200
    model = _model(cfg)
    inputs = [_input(50, 71, _image(64, 90))]
    with torch.no_grad():
        expected = GeneralizedRCNNWithTTA(cfg, model)(copy.deepcopy(inputs))[0]["instances"]
    for mapper in (None, DatasetMapperTTA(cfg)):
        found = PanopticFPNWithTTA(cfg, model, mapper)(inputs)[0]["instances"]
        assert min(len(found), len(expected)) > 50
        found, best = found[:50], expected[:50]  # among the last, detectron2 counts boxes without an area
        torch.testing.assert_close(found.scores, best.scores)
        assert torch.equal(found.pred_classes, best.pred_classes)
        torch.testing.assert_close(found.pred_boxes.tensor, best.pred_boxes.tensor, atol=1e-3, rtol=1e-4)
        assert (found.pred_masks != best.pred_masks).float().mean() < 1e-3


def test_semantic_probabilities_are_averaged_on_the_image():
    cfg = _cfg((48, 64), flip=True)
    model = _model(cfg)
    image = _image(64, 90)
    mean = 0.0
    for view in Views(cfg)(_input(50, 71, image)):
        logits = model([{**view, "height": 50, "width": 71}])[0]["sem_seg"]
        is_mirrored = any(isinstance(t, T.HFlipTransform) for t in view["transforms"].transforms)
        mean = mean + (logits.flip(-1) if is_mirrored else logits).softmax(dim=0) / 4
    found = PanopticFPNWithTTA(cfg, model)([_input(50, 71, image)])[0]["sem_seg"]
    torch.testing.assert_close(found.exp(), mean, atol=1e-5, rtol=1e-4)


def test_one_view_is_in_memory_at_a_time():
    """Of the pyramid of a view nothing is left when the next one is looked at, and the largest comes first."""
    cfg = _cfg((40, 64, 48), flip=True)
    model = _model(cfg)
    alive: list[weakref.ref[torch.Tensor]] = []
    widths = []

    def before(_: Any, inputs: tuple[torch.Tensor]) -> None:
        assert len(inputs[0]) == 1
        assert not any(level() is not None for level in alive)
        widths.append(inputs[0].shape[-1])

    model.backbone.register_forward_pre_hook(before)
    model.backbone.register_forward_hook(lambda *args: alive.extend(map(weakref.ref, args[2].values())))
    PanopticFPNWithTTA(cfg, model)([_input(64, 64, _image(64, 64)), _input(64, 64, _image(64, 64))])
    assert len(widths) == 2 * 2 * 6
    assert widths == sorted(widths[:6], reverse=True) * 4


@pytest.mark.parametrize("outputs", [*([one] for one in POSSIBLE_OUTPUTS), ["sem_seg_labels", "panoptic_seg"]])
@pytest.mark.parametrize("output_size", [(50, 71), (90, 120)])
def test_it_gives_what_the_model_gives(outputs, output_size):
    cfg = _cfg((48, 64), flip=True)
    model = _model(cfg)
    inputs = [_input(*output_size, _image(64, 90))]
    everything = PanopticFPNWithTTA(cfg, model)(inputs)[0]
    model.outputs = frozenset(outputs)
    found = PanopticFPNWithTTA(cfg, model)(inputs)[0]
    assert list(found) == outputs == list(model(inputs)[0])
    if "panoptic_seg" in outputs:
        assert torch.equal(found["panoptic_seg"][0], everything["panoptic_seg"][0])
    if "sem_seg_labels" in outputs:
        assert found["sem_seg_labels"].dtype == torch.int32
        agreement = found["sem_seg_labels"] == everything["sem_seg"].argmax(dim=0)
        assert agreement.double().mean() > 0.999  # equal logits may be told apart by rounding


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_the_model_in_its_mode(training):
    cfg = _cfg((48, 64), flip=True)
    model = _model(cfg).train(training)
    with inference_context(wrapper := PanopticFPNWithTTA(cfg, model)):
        wrapper([_input(50, 71, _image(64, 90))])
    assert model.training == training


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (200, 2)])
def test_odd_images(size):
    for cfg in (_cfg((40, 48), flip=True, max_size=64), _cfg((1,), flip=True, **{"MODEL.SEM_SEG_HEAD.NORM": ""})):
        found = PanopticFPNWithTTA(cfg, _model(cfg))([{"image": _image(*size)}])[0]
        assert found["panoptic_seg"][0].shape == size
        assert found["sem_seg"].shape[1:] == size


@pytest.mark.parametrize("output_size", [(50, 71), (90, 120)])
def test_the_combiner_that_looks_at_the_image(output_size):
    cfg = _cfg((48, 64), flip=True, **{"MODEL.PANOPTIC_FPN.COMBINE.NAME": "DINCombiner"})
    found = PanopticFPNWithTTA(cfg, _model(cfg))([_input(*output_size, _image(64, 90))])[0]
    assert found["panoptic_seg"][0].shape == output_size
    assert {s["isthing"] for s in found["panoptic_seg"][1]} == {True, False}


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_an_image_is_read_from_its_file(image_format, tmp_path):
    cfg, path = _cfg((48, 64), flip=True), str(tmp_path / "image.png")
    cfg.INPUT.FORMAT = image_format
    tta = PanopticFPNWithTTA(cfg, _model(cfg))
    image = _image(50, 71)
    cv2.imwrite(path, (image if image_format == "BGR" else image.flip(0)).permute(1, 2, 0).numpy())
    (given,), (read,) = tta([{"image": image}]), tta([{"file_name": path}])
    assert torch.equal(given["panoptic_seg"][0], read["panoptic_seg"][0])
    assert torch.equal(given["sem_seg"], read["sem_seg"])


def test_files_are_read_as_everywhere_in_the_package(tmp_path):
    """16-bit grey is not white, and a broken file is named."""
    cfg = _cfg((48, 64), flip=True)
    tta, path = PanopticFPNWithTTA(cfg, _model(cfg)), str(tmp_path / "grey16.png")
    grey = _image(50, 71).numpy()[0].astype(np.uint16) * 257
    cv2.imwrite(path, grey)
    image = torch.from_numpy(np.repeat((grey >> 8).astype(np.uint8)[None], 3, axis=0))
    (given,), (read,) = tta([{"image": image}]), tta([{"file_name": path}])
    assert torch.equal(given["panoptic_seg"][0], read["panoptic_seg"][0])
    (tmp_path / "broken.png").write_bytes((tmp_path / "grey16.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"broken\.png"):
        tta([{"file_name": str(tmp_path / "broken.png")}])


def test_cascades():
    cfg = _cfg((48,), flip=True)
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = "CascadeROIHeads", True
    found = PanopticFPNWithTTA(cfg, _model(cfg))([_input(64, 90, _image(64, 90))])[0]
    assert found["panoptic_seg"][0].shape == (64, 90)


def test_what_it_refuses():
    cfg = _cfg((48,), flip=True)
    model = _model(cfg)
    with pytest.raises(ValueError, match="needs a PanopticFPNExt, got a GeneralizedRCNN"):
        PanopticFPNWithTTA(cfg, _model(_cfg((48,), architecture="GeneralizedRCNN")))

    def turned(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {**inputs, "transforms": T.TransformList([T.RotationTransform(64, 64, 90)])}

    with pytest.raises(ValueError, match="can undo resizes and horizontal flips, not RotationTransform"):
        PanopticFPNWithTTA(cfg, model, turned)([_input(64, 64, _image(64, 64))])
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MIN_SIZES"):
        PanopticFPNWithTTA(_cfg(()), model)
    with pytest.raises(ValueError, match=r"an `image` or a `file_name`, got \['height'\]"):
        PanopticFPNWithTTA(cfg, model)([{"height": 5}])
    with pytest.raises(AssertionError, match=r"eval\(\)"):
        PanopticFPNWithTTA(cfg, model.train())([_input(64, 64, _image(64, 64))])


@pytest.mark.parametrize("output_size", [(64, 96), (100, 150), (9, 11)])
def test_rows_of_logits_at_output_size(output_size):
    logits = torch.randn(5, 16, 24)
    whole = upsample_sem_seg_logits(logits, 4, (61, 90), output_size)
    parts = [
        sem_seg_logits_of_rows(logits, 4, (61, 90), output_size, slice(start, min(start + 7, output_size[0])))
        for start in range(0, output_size[0], 7)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
