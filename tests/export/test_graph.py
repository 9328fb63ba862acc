"""One graph for images of all sizes, against the eager model."""

import copy
import functools
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from small_models import tiny_cfg

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data.image_predictor import FailedImagesError
from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.data.planes import to_planes
from panoptic_fpn_ext.data.street.scene import draw_street
from panoptic_fpn_ext.engine.memory import resident
from panoptic_fpn_ext.export import ExportedPredictor, PanopticGraph, describe, predict, write_onnx, write_openvino
from panoptic_fpn_ext.export.__main__ import main as export
from panoptic_fpn_ext.export.combine import _composed_taps
from panoptic_fpn_ext.export.description import dataset_ids
from panoptic_fpn_ext.export.detector import least_float32
from panoptic_fpn_ext.export.program_files import write_program
from panoptic_fpn_ext.export.resize import network_input_size, resize_image
from panoptic_fpn_ext.export.runtimes import open_session
from panoptic_fpn_ext.modeling.outputs import OUTPUTS
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
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.01)  # more, and scores are 1 and tie
    return model


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).copy()


def _resized(image: np.ndarray) -> np.ndarray:
    return NonemptyResizeShortestEdge([RESIZE[0]] * 2, RESIZE[1]).get_transform(image).apply_image(image)


def _eager(model: Any, image: np.ndarray) -> dict[str, Any]:
    with torch.no_grad():
        return model([{"image": to_planes(_resized(image)), "height": image.shape[0], "width": image.shape[1]}])[0]


def _assert_same(found: dict[str, Any], model: Any, image: np.ndarray, categories: PanopticCategories) -> int:
    panoptic_seg, infos = _eager(model, image)["panoptic_seg"]
    found = {name: np.asarray(value) for name, value in found.items()}
    assert found["panoptic_seg"].dtype == np.int32
    assert (found["panoptic_seg"] != panoptic_seg.numpy()).mean() <= 1e-3  # of a few thousand pixels
    expected_ids = [categories.dataset_id(i["category_id"], i["isthing"]) for i in infos]
    assert found["category_id"].tolist() == expected_ids
    assert found["isthing"].tolist() == [i["isthing"] for i in infos]
    np.testing.assert_allclose(found["score"], [i.get("score", 1.0) for i in infos], rtol=1e-4)
    areas = np.bincount(found["panoptic_seg"].ravel(), minlength=len(infos) + 1)
    assert found["segment_id"].tolist() == list(range(1, len(infos) + 1))
    assert found["area"].tolist() == areas[1:].tolist()
    assert found["box"].shape == (len(infos), 4)
    return sum(found["isthing"].tolist())


def _graph(model: Any, categories: PanopticCategories, **options: Any) -> PanopticGraph:
    return PanopticGraph(model, dataset_ids(categories), RESIZE, **options).eval()


def _run_in_pytorch(graph: PanopticGraph, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(zip(graph.output_names, graph(*inputs), strict=True))


class Exported(NamedTuple):
    """A model whose scores do not tie, and its file with all outputs."""

    model: Any
    categories: PanopticCategories
    graph: PanopticGraph
    path: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnx")
    model, categories = _model(), PanopticCategories(ROWS)
    graph = _graph(model, categories, outputs=OUTPUTS)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(graph, path, describe(graph, categories, "BGR"))
    return Exported(model, categories, graph, path)


# Half as much to write down, for exporters that take long.
TWO_LEVELS = (
    *("MODEL.BACKBONE.NAME", "build_narrow_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH", 18),
    *("MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res4", "res5"]),
    *("MODEL.RPN.IN_FEATURES", ["p4", "p5", "p6"], "MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128]]),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p4", "p5"], "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p4", "p5"]),
    *("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 16),
)
KINDS = {
    "separate networks, all classes": {"architecture": "SeparatePanopticNetworks", "space": ALL_CLASSES},
    "detectron2's with EfficientNet": {
        "architecture": "PanopticFPN",
        "options": ["MODEL.BACKBONE.NAME", "build_efficientnet_lite0_fpn_backbone"],
    },
    "class-agnostic cascade, split channels": {
        "options": [
            *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS", True),
            *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True),
        ]
    },
    "no detection": {"options": [*TWO_LEVELS, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 2.0]},
    "one detection": {"options": [*TWO_LEVELS, "TEST.DETECTIONS_PER_IMAGE", 1]},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_gives_the_maps_of_other_models(kind, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    arguments = dict(KINDS[kind])
    space = arguments.get("space", THINGS_AS_OTHER)
    model = _model(*arguments.pop("options", ()), **arguments)
    categories = PanopticCategories(ROWS, space)
    graph = _graph(model, categories)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    session, _ = open_session(tmp_path / "model.onnx", 1)
    things = [
        _assert_same(session({"image": _image(*s, i)}), model, _image(*s, i), categories) for i, s in enumerate(SIZES)
    ]
    most = {"no detection": 0, "one detection": 1}.get(kind)
    assert max(things) == most if most is not None else max(things) > 1


def test_one_session_serves_all_sizes_in_any_order_and_gives_detectron2s_outputs(exported):
    pytest.importorskip("onnxruntime")
    predictor = ExportedPredictor(exported.path, threads=1)
    things = 0
    for seed, size in enumerate((*SIZES, *SIZES[::-1])):
        image = _image(*size, seed)
        things += _assert_same(predictor._file.session({"image": image}), exported.model, image, exported.categories)
    assert things > 20
    expected, found = _eager(exported.model, image), predictor(image)
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=1e-3, atol=1e-3)
    for name in ("scores", "pred_classes"):
        torch.testing.assert_close(found["instances"].get(name), expected["instances"].get(name), rtol=1e-4, atol=1e-4)
    boxes = (one["instances"].pred_boxes.tensor for one in (found, expected))
    torch.testing.assert_close(*boxes, rtol=1e-3, atol=1e-2)
    masks = [one["instances"].pred_masks for one in (found, expected)]
    assert (masks[0] != masks[1]).float().mean() < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux")
def test_fifty_images_in_random_order_need_no_more_memory(exported):
    pytest.importorskip("onnxruntime")
    predictor = ExportedPredictor(exported.path, threads=1)
    rng = random.Random(0)
    sizes = [(rng.randint(7, 400), rng.randint(7, 400)) for _ in range(24)] + [(64, 64), (500, 700)]
    order = rng.sample(sizes * 2, 50)
    memory = []
    for number, size in enumerate(sizes + order):
        image = _image(*size, sizes.index(size))
        predictor.set_thresholds({"instance_score_threshold": (0.0, 0.2, 1.0)[number % 3]})
        predictor(image)
        memory.append(resident())
    assert memory[-1] < 1.02 * memory[len(sizes)] + 2**24


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux")
def test_openvino_keeps_little_of_the_sizes_of_many_instances(tmp_path):
    """By itself it would go on growing."""
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    street = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
    every = ["--opts", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    assert export([street, "zoo", str(tmp_path), "--format", "openvino", *every]) == 0
    predictor = ExportedPredictor(tmp_path / "model.xml", threads=1)
    predictor.set_thresholds({"instance_score_threshold": 0.0})
    memory = []
    for number in range(24):
        height, width = 64 + number * 37 % 160, 64 + number * 53 % 192
        image = draw_street(0, 24, number, height, width).image
        predictor(np.ascontiguousarray(image[:, :, ::-1]))
        memory.append(resident() / 2**20)
    assert memory[-1] - memory[11] < 150


def test_thresholds_are_inputs(exported):
    pytest.importorskip("onnxruntime")
    image = _image(40, 90, 1)
    things = [info["score"] for info in _eager(exported.model, image)["panoptic_seg"][1] if info["isthing"]]
    thresholds = {"instance_score_threshold": things[-2], "overlap_threshold": 0.01, "stuff_area_threshold": 1000}
    for name, value in thresholds.items():
        model = copy.deepcopy(exported.model)
        setattr(model.combiner, name, value)
        panoptic_seg, infos = _eager(model, image)["panoptic_seg"]
        found, segments = ExportedPredictor(exported.path, threads=1, thresholds={name: value})(image)["panoptic_seg"]
        assert (found != panoptic_seg).float().mean() < 1e-3 and len(segments) == len(infos), name
        assert (_eager(exported.model, image)["panoptic_seg"][0] != panoptic_seg).float().mean() > 1e-3, name
    with pytest.raises(ValueError, match="instance_score_threshold"):
        ExportedPredictor(exported.path, thresholds={"score": 0.5})


def test_files_pillow_and_lists(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    predictor, image = ExportedPredictor(exported.path, threads=1), _image(33, 47)
    path = tmp_path / "photo.png"
    Image.fromarray(image[:, :, ::-1]).save(path)
    expected, infos = predictor(image)["panoptic_seg"]
    assert all(info["name"].startswith("c") or not info["isthing"] for info in infos)
    for one in predictor([str(path), path, Image.open(path)]):
        assert torch.equal(one["panoptic_seg"][0], expected)
    with pytest.raises(FailedImagesError, match="1 of 2"):
        predictor([path, tmp_path / "none.png"])
    with pytest.raises(ValueError, match="ExportedPredictor needs a uint8 image"):
        predictor(image.astype(np.float32))


def test_the_graph_runs_in_pytorch_too():
    model, categories = _model(), PanopticCategories(ROWS)
    graph = _graph(model, categories)
    for seed, size in enumerate(SIZES):
        image = _image(*size, seed)
        _assert_same(_run_in_pytorch(graph, torch.from_numpy(image)), model, image, categories)


def test_instances_of_equal_score_come_in_the_eager_models_order():
    model, categories = _model(), PanopticCategories(ROWS)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)  # many scores are 1
    image = _image(33, 47, 3)
    infos = _eager(model, image)["panoptic_seg"][1]
    scores = [info["score"] for info in infos if info["isthing"]]
    assert len(set(scores)) < len(scores)
    _assert_same(_run_in_pytorch(_graph(model, categories), torch.from_numpy(image)), model, image, categories)


@pytest.mark.slow
def test_openvino_gives_the_same_segments(exported, tmp_path):
    pytest.importorskip("openvino")
    model, categories = exported.model, exported.categories
    write_openvino(exported.path, tmp_path / "model.xml")
    predictor = ExportedPredictor(tmp_path / "model.xml", threads=1)
    assert predictor.description == ExportedPredictor(exported.path).description
    for seed, size in enumerate(SIZES):
        _assert_same(predictor._file.session({"image": _image(*size, seed)}), model, _image(*size, seed), categories)
    strict = ExportedPredictor(tmp_path / "model.xml", threads=1, thresholds={"instance_score_threshold": 1.0})
    assert not any(info["isthing"] for info in strict(_image(64, 64))["panoptic_seg"][1])


@pytest.mark.slow
def test_resized_input(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model, categories = _model(*TWO_LEVELS), PanopticCategories(ROWS)
    graph = _graph(model, categories, resizes=False)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    predictor = ExportedPredictor(tmp_path / "model.onnx", threads=1)  # which resizes itself
    for seed, size in enumerate(SIZES):
        image = _image(*size, seed)
        found = predictor._file.session({"image": _resized(image), "output_size": np.array(size)})
        _assert_same(found, model, image, categories)
        assert np.array_equal(predictor(image)["panoptic_seg"][0], found["panoptic_seg"])


@pytest.mark.slow
def test_a_program_of_torch_export_gives_the_same_segments(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "RESIZE", (96, 160))
    monkeypatch.setattr(torch.export, "load", functools.cache(torch.export.load))  # which takes long
    model, categories = _model(*TWO_LEVELS, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.61), PanopticCategories(ROWS)
    graph = _graph(model, categories, resizes=False)
    path = tmp_path / "model.pt2"
    write_program(graph, path, describe(graph, categories, "BGR"))
    predictor = ExportedPredictor(path)
    script, description = predict.load(str(path))
    assert description == predictor.description
    things = []
    for image in (_image(64, 64, 0), np.zeros((64, 64, 3), dtype=np.uint8), _image(130, 70, 2), _image(80, 150, 1)):
        found = predictor._file.session({"image": _resized(image), "output_size": np.array(image.shape[:2])})
        things.append(_assert_same(found, model, image, categories))
        for name, one in zip(predict.NAMES, script(image), strict=True):
            np.testing.assert_allclose(one, found[name], atol=1e-4)
    assert min(things) == 0 and min(things[1], things[3]) > 1
    strict = ExportedPredictor(path, thresholds={"instance_score_threshold": 1.0})  # no candidate
    assert not any(info["isthing"] for info in strict(image)["panoptic_seg"][1])
    assert predictor.takes(image) and not predictor.takes(_image(20, 160))
    with pytest.raises(ValueError, match="more than 64 px a side"):
        predictor(_image(20, 160))
    with pytest.raises(ValueError, match="cannot express the resizing"):
        write_program(_graph(model, categories), path, {})


def test_what_cannot_be_exported_is_named(tmp_path):
    model, ids = _model(), {}

    def refused(model: Any, match: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            PanopticGraph(model, ids, RESIZE, **options)

    refused(_model().train(), "in training mode")
    refused(_model().half(), "float16")
    refused(model, "panoptic_seg and, on request", outputs=["sem_seg"])
    deformable = _model()  # detectron2's own needs its compiled operators
    deformable.backbone.extra = type("ModulatedDeformConv", (torch.nn.Module,), {})()
    refused(deformable, "backbone.extra is a deformable convolution")
    pointed = _model()
    pointed.roi_heads.mask_head = torch.nn.Identity()
    refused(pointed, "mask head is Identity")
    model.combiner = object()
    refused(model, "combiner is object")
    with pytest.raises(ValueError, match="BGR or RGB"):
        describe(_graph(_model(), PanopticCategories(ROWS)), PanopticCategories(ROWS), "L")
    with pytest.raises(FileNotFoundError, match="no exported model"):
        ExportedPredictor(tmp_path / "none.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(ValueError, match=r"\.onnx"):
        ExportedPredictor(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "size",
    [
        (64, 64),
        (1, 1),
        (300, 1),
        (301, 77),
        (200, 100),
        (203, 101),
        (31, 200),
        (200, 150),
        (97, 33),
        (96, 64),
        (333, 500),
    ],
)
@pytest.mark.parametrize("resize", [(64, 96), (240, 384), (0, 0)])
def test_resizing_gives_pillows_pixels(size, resize):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = NonemptyResizeShortestEdge([resize[0]] * 2, resize[1] or 1333).get_transform(image).apply_image(image)
    height, width = network_input_size(torch.tensor(size[0]), torch.tensor(size[1]), *resize)
    found = resize_image(torch.from_numpy(image), height, width).numpy()
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


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
        graph = _graph(optimize_for_inference(model), categories)
    _assert_same(_run_in_pytorch(graph, torch.from_numpy(image)), model, image, categories)
