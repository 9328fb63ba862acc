"""One graph for images of all sizes, against the eager model."""

import copy
import functools
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from small_graphs import (
    ROWS,
    SIZES,
    TWO_LEVELS,
    assert_same,
    eager,
    graph_of,
    photo,
    resized,
    run_in_pytorch,
    tiny_model,
)

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.categories import ALL_CLASSES, THINGS_AS_OTHER, PanopticCategories
from panoptic_fpn_ext.data.image_predictor import FailedImagesError
from panoptic_fpn_ext.data.street.scene import draw_street
from panoptic_fpn_ext.engine.memory import resident
from panoptic_fpn_ext.export import ExportedPredictor, PanopticGraph, describe, predict, write_onnx, write_openvino
from panoptic_fpn_ext.export.__main__ import main as export
from panoptic_fpn_ext.export.program_files import write_program
from panoptic_fpn_ext.export.runtimes import open_session
from panoptic_fpn_ext.modeling.outputs import OUTPUTS


class Exported(NamedTuple):
    """A model whose scores do not tie, and its file with all outputs."""

    model: Any
    categories: PanopticCategories
    graph: PanopticGraph
    path: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnx")
    model, categories = tiny_model(), PanopticCategories(ROWS)
    graph = graph_of(model, categories, outputs=OUTPUTS)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(graph, path, describe(graph, categories, "BGR"))
    return Exported(model, categories, graph, path)


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
    model = tiny_model(*arguments.pop("options", ()), **arguments)
    categories = PanopticCategories(ROWS, space)
    graph = graph_of(model, categories)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    session, _ = open_session(tmp_path / "model.onnx", 1)
    things = [
        assert_same(session({"image": photo(*s, i)}), model, photo(*s, i), categories) for i, s in enumerate(SIZES)
    ]
    most = {"no detection": 0, "one detection": 1}.get(kind)
    assert max(things) == most if most is not None else max(things) > 1


def test_one_session_serves_all_sizes_in_any_order_and_gives_detectron2s_outputs(exported):
    pytest.importorskip("onnxruntime")
    predictor = ExportedPredictor(exported.path, threads=1)
    things = 0
    for seed, size in enumerate((*SIZES, *SIZES[::-1])):
        image = photo(*size, seed)
        things += assert_same(predictor._file.session({"image": image}), exported.model, image, exported.categories)
    assert things > 20
    expected, found = eager(exported.model, image), predictor(image)
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
        image = photo(*size, sizes.index(size))
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
    image = photo(40, 90, 1)
    things = [info["score"] for info in eager(exported.model, image)["panoptic_seg"][1] if info["isthing"]]
    thresholds = {"instance_score_threshold": things[-2], "overlap_threshold": 0.01, "stuff_area_threshold": 1000}
    for name, value in thresholds.items():
        model = copy.deepcopy(exported.model)
        setattr(model.combiner, name, value)
        panoptic_seg, infos = eager(model, image)["panoptic_seg"]
        found, segments = ExportedPredictor(exported.path, threads=1, thresholds={name: value})(image)["panoptic_seg"]
        assert (found != panoptic_seg).float().mean() < 1e-3 and len(segments) == len(infos), name
        assert (eager(exported.model, image)["panoptic_seg"][0] != panoptic_seg).float().mean() > 1e-3, name
    with pytest.raises(ValueError, match="instance_score_threshold"):
        ExportedPredictor(exported.path, thresholds={"score": 0.5})


def test_files_pillow_and_lists(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    predictor, image = ExportedPredictor(exported.path, threads=1), photo(33, 47)
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
    model, categories = tiny_model(), PanopticCategories(ROWS)
    graph = graph_of(model, categories)
    for seed, size in enumerate(SIZES):
        image = photo(*size, seed)
        assert_same(run_in_pytorch(graph, torch.from_numpy(image)), model, image, categories)


def test_instances_of_equal_score_come_in_the_eager_models_order():
    model, categories = tiny_model(), PanopticCategories(ROWS)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)  # many scores are 1
    image = photo(33, 47, 3)
    infos = eager(model, image)["panoptic_seg"][1]
    scores = [info["score"] for info in infos if info["isthing"]]
    assert len(set(scores)) < len(scores)
    assert_same(run_in_pytorch(graph_of(model, categories), torch.from_numpy(image)), model, image, categories)


@pytest.mark.slow
def test_openvino_gives_the_same_segments(exported, tmp_path):
    pytest.importorskip("openvino")
    model, categories = exported.model, exported.categories
    write_openvino(exported.path, tmp_path / "model.xml")
    predictor = ExportedPredictor(tmp_path / "model.xml", threads=1)
    assert predictor.description == ExportedPredictor(exported.path).description
    for seed, size in enumerate(SIZES):
        assert_same(predictor._file.session({"image": photo(*size, seed)}), model, photo(*size, seed), categories)
    strict = ExportedPredictor(tmp_path / "model.xml", threads=1, thresholds={"instance_score_threshold": 1.0})
    assert not any(info["isthing"] for info in strict(photo(64, 64))["panoptic_seg"][1])


@pytest.mark.slow
def test_resized_input(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model, categories = tiny_model(*TWO_LEVELS), PanopticCategories(ROWS)
    graph = graph_of(model, categories, resizes=False)
    write_onnx(graph, tmp_path / "model.onnx", describe(graph, categories, "BGR"))
    predictor = ExportedPredictor(tmp_path / "model.onnx", threads=1)  # which resizes itself
    for seed, size in enumerate(SIZES):
        image = photo(*size, seed)
        found = predictor._file.session({"image": resized(image), "output_size": np.array(size)})
        assert_same(found, model, image, categories)
        assert np.array_equal(predictor(image)["panoptic_seg"][0], found["panoptic_seg"])


@pytest.mark.slow
def test_a_program_of_torch_export_gives_the_same_segments(tmp_path, monkeypatch):
    monkeypatch.setattr("small_graphs.RESIZE", (96, 160))
    monkeypatch.setattr(torch.export, "load", functools.cache(torch.export.load))  # which takes long
    model, categories = tiny_model(*TWO_LEVELS, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.61), PanopticCategories(ROWS)
    graph = graph_of(model, categories, resizes=False)
    path = tmp_path / "model.pt2"
    write_program(graph, path, describe(graph, categories, "BGR"))
    predictor = ExportedPredictor(path)
    script, description = predict.load(str(path))
    assert description == predictor.description
    things = []
    for image in (photo(64, 64, 0), np.zeros((64, 64, 3), dtype=np.uint8), photo(130, 70, 2), photo(80, 150, 1)):
        found = predictor._file.session({"image": resized(image), "output_size": np.array(image.shape[:2])})
        things.append(assert_same(found, model, image, categories))
        for name, one in zip(predict.NAMES, script(image), strict=True):
            np.testing.assert_allclose(one, found[name], atol=1e-4)
    assert min(things) == 0 and min(things[1], things[3]) > 1
    strict = ExportedPredictor(path, thresholds={"instance_score_threshold": 1.0})  # no candidate
    assert not any(info["isthing"] for info in strict(image)["panoptic_seg"][1])
    assert predictor.takes(image) and not predictor.takes(photo(20, 160))
    with pytest.raises(ValueError, match="more than 64 px a side"):
        predictor(photo(20, 160))
    with pytest.raises(ValueError, match="cannot express the resizing"):
        write_program(graph_of(model, categories), path, {})


def test_an_optimized_model_gives_the_same_maps():
    model, categories = tiny_model(), PanopticCategories(ROWS)
    image = photo(64, 64)
    with torch.no_grad():
        graph = graph_of(optimize_for_inference(model), categories)
    assert_same(run_in_pytorch(graph, torch.from_numpy(image)), model, image, categories)
