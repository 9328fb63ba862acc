"""One graph for images of all sizes, against the eager model."""

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from small_models import tiny_cfg

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data.images import to_planes
from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.export import ExportedPredictor, PanopticGraph, describe, write_onnx, write_openvino
from panoptic_fpn_ext.export.combine import _composed_taps
from panoptic_fpn_ext.export.description import dataset_ids
from panoptic_fpn_ext.export.detector import least_float32
from panoptic_fpn_ext.export.resize import network_input_size, resize_image
from panoptic_fpn_ext.modeling.postprocessing import composed_taps

RESIZE = (64, 96)
SIZES = ((64, 64), (40, 90), (130, 70), (33, 47), (64, 64), (7, 120))
ROWS = [{"id": 3 * i + 1, "name": f"c{i}", "isthing": int(i in (1, 3, 5, 6))} for i in range(9)]


def _model(*options: object, architecture: str = "PanopticFPNExt", space: str = THINGS_AS_OTHER) -> Any:
    cfg = tiny_cfg(architecture)
    num_classes = 9 if space == ALL_CLASSES else 6
    cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.2])
    cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 20, "TEST.DETECTIONS_PER_IMAGE", 20])
    if space == ALL_CLASSES:
        cfg.merge_from_list(["MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS", (1, 3, 5, 6)])
    cfg.merge_from_list(list(options))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, module in model.named_modules():
        if name.endswith(("conv2.norm", "conv3.norm")):
            torch.nn.init.constant_(module.weight, 0.2)  # or activations grow from block to block and scores tie
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.5)
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, torch.nn.ModuleList) else [predictors]:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.05)  # more, and all scores are 1
    return model


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()


def _eager(model: Any, image: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    resized = NonemptyResizeShortestEdge([RESIZE[0]] * 2, RESIZE[1]).get_transform(image).apply_image(image)
    with torch.no_grad():
        inputs = {"image": to_planes(resized), "height": image.shape[0], "width": image.shape[1]}
        panoptic_seg, segments_info = model([inputs])[0]["panoptic_seg"]
    return panoptic_seg.numpy(), segments_info


def _assert_same(found: Any, model: Any, image: np.ndarray, categories: PanopticCategories) -> int:
    panoptic_seg, infos = _eager(model, image)
    found = {name: np.asarray(value) for name, value in found.items()}
    assert found["panoptic_seg"].dtype == np.int32
    assert (found["panoptic_seg"] != panoptic_seg).mean() <= 1e-3  # of a few thousand pixels
    expected_ids = [categories.dataset_id(i["category_id"], i["isthing"]) for i in infos]
    assert found["category_id"].tolist() == expected_ids
    assert found["isthing"].tolist() == [i["isthing"] for i in infos]
    np.testing.assert_allclose(found["score"], [i.get("score", 1.0) for i in infos], rtol=1e-4)
    areas = np.bincount(found["panoptic_seg"].ravel(), minlength=len(infos) + 1)
    assert found["segment_id"].tolist() == list(range(1, len(infos) + 1))
    assert found["area"].tolist() == areas[1:].tolist()
    assert found["box"].shape == (len(infos), 4)
    return sum(found["isthing"].tolist())


def _graph(model: Any, categories: PanopticCategories, resize: Any = RESIZE) -> PanopticGraph:
    return PanopticGraph(model, dataset_ids(categories), resize).eval()


KINDS = {
    "ours": {},
    "separate networks": {"architecture": "SeparatePanopticNetworks"},
    "detectron2's": {"architecture": "PanopticFPN"},
    "all classes": {"space": ALL_CLASSES},
    "cascade": {
        "options": ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
    },
    "class-agnostic": {
        "options": ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True]
    },
    "split channels": {"options": ["MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS", True]},
    "no detection": {"options": ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 2.0]},
    "EfficientNet": {"options": ["MODEL.BACKBONE.NAME", "build_efficientnet_lite0_fpn_backbone"]},
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k not in ("ours", "cascade") else []) for k in KINDS]
)
def test_onnx_runtime_gives_the_eager_models_maps(kind, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    arguments = dict(KINDS[kind])
    space = arguments.get("space", THINGS_AS_OTHER)
    model = _model(*arguments.pop("options", ()), **arguments)
    categories = PanopticCategories(ROWS, space)
    graph = _graph(model, categories)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    session = ExportedPredictor(tmp_path / "model.onnx", threads=1)._session
    things = [
        _assert_same(session({"image": _image(*s, i)}), model, _image(*s, i), categories) for i, s in enumerate(SIZES)
    ]
    assert max(things) == 0 if kind == "no detection" else max(things) > 1


def test_the_graph_runs_in_pytorch_too():
    model, categories = _model(), PanopticCategories(ROWS)
    graph = _graph(model, categories)
    for seed, size in enumerate(SIZES):
        image = _image(*size, seed)
        with torch.no_grad():
            _assert_same(graph(torch.from_numpy(image))._asdict(), model, image, categories)


@pytest.mark.slow
def test_openvino_gives_the_same_segments(tmp_path):
    for name in ("onnx", "openvino"):
        pytest.importorskip(name)
    model, categories = _model(), PanopticCategories(ROWS)
    graph = _graph(model, categories)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    write_openvino(tmp_path / "model.onnx", tmp_path / "model.xml")
    predictor = ExportedPredictor(tmp_path / "model.xml", threads=1)
    assert predictor.description == describe(graph, categories, "BGR") | {"classes": predictor.description["classes"]}
    for seed, size in enumerate(SIZES):
        _assert_same(predictor._session({"image": _image(*size, seed)}), model, _image(*size, seed), categories)


@pytest.mark.slow
def test_resized_input(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from panoptic_fpn_ext.export.runtimes import open_session

    model, categories = _model(), PanopticCategories(ROWS)
    graph = _graph(model, categories, resize=None)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    session, _ = open_session(tmp_path / "model.onnx", 1)
    for seed, size in enumerate(SIZES):
        image = _image(*size, seed)
        resized = NonemptyResizeShortestEdge([RESIZE[0]] * 2, RESIZE[1]).get_transform(image).apply_image(image)
        found = session({"image": resized, "output_size": np.array(size)})
        _assert_same(found, model, image, categories)
    with pytest.raises(ValueError, match="takes resized images"):
        ExportedPredictor(tmp_path / "model.onnx")


def test_what_cannot_be_exported_is_named(tmp_path):
    model, ids = _model(), {}
    with pytest.raises(ValueError, match="in training mode"):
        PanopticGraph(_model().train(), ids, RESIZE)
    with pytest.raises(ValueError, match="float16"):
        PanopticGraph(_model().half(), ids, RESIZE)
    with pytest.raises(ValueError, match="combiner is object"):
        model.combiner = object()
        PanopticGraph(model, ids, RESIZE)
    with pytest.raises(ValueError, match="BGR or RGB"):
        describe(_graph(_model(), PanopticCategories(ROWS)), PanopticCategories(ROWS), "L")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        ExportedPredictor(tmp_path / "none.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"\.onnx or \.xml"):
        ExportedPredictor(tmp_path / "model.pt")


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (300, 1), (31, 200), (200, 150), (97, 33), (96, 64), (333, 500)])
@pytest.mark.parametrize("resize", [(64, 96), (240, 384), (0, 0)])
def test_resizing_gives_pillows_pixels(size, resize):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = NonemptyResizeShortestEdge([resize[0]] * 2, resize[1] or 1333).get_transform(image).apply_image(image)
    height, width = network_input_size(torch.tensor(size[0]), torch.tensor(size[1]), *resize)
    found = resize_image(torch.from_numpy(image), height, width).numpy()
    assert found.shape == expected.shape
    # Pillow 13 resizes rows first where an image is much higher than wide, older ones never do.
    assert np.abs(found - expected.astype(int)).max() <= (1 if size[0] > 2 * size[1] else 0)


@pytest.mark.parametrize(
    ("length", "stride", "crop", "out"), [(8, 4, 30, 47), (16, 4, 64, 9), (1, 4, 1, 5), (20, 1, 17, 33)]
)
def test_taps_are_those_of_the_eager_model(length, stride, crop, out):
    def matrix(index, weight):
        return torch.zeros(out, length).scatter_add(1, index, weight)

    found = matrix(*_composed_taps(torch.tensor(length), stride, torch.tensor(crop), torch.tensor(out)))
    torch.testing.assert_close(found, matrix(*composed_taps(length, stride, crop, out, "cpu")), rtol=0, atol=1e-5)


def test_a_threshold_in_float32():
    for threshold in (0.5, 0.1, 0.3, 0.7, 0.0):
        least = least_float32(threshold)
        assert least >= threshold > float(np.nextafter(np.float32(least), np.float32(-1)))


def test_an_optimized_model_gives_the_same_maps():
    model, categories = _model(), PanopticCategories(ROWS)
    image = _image(64, 64)
    with torch.no_grad():
        found = _graph(optimize_for_inference(model), categories)(torch.from_numpy(image))
    _assert_same(found._asdict(), model, image, categories)
