"""Files in 8-bit integers: they are written, their layers run in 8 bits, and what they cost is measured."""

import ctypes
import gc
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.data import read_image
from panoptic_fpn_ext.engine.setup import load_config
from panoptic_fpn_ext.export import ExportedPredictor
from panoptic_fpn_ext.export.int8 import choose_int8, layer_groups, write_int8
from panoptic_fpn_ext.export.openvino_files import openvino_core

pytestmark = pytest.mark.slow
pytest.importorskip("openvino")
pytest.importorskip("onnx")
pytest.importorskip("nncf")
INT8 = "panoptic_fpn_ext.export.int8"
STREET = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


@pytest.fixture(scope="module")
def source(released_export: Path) -> Path:
    """The released model, in float32; its datasets are registered."""
    load_config(model_zoo.get_config_file(STREET), ["MODEL.WEIGHTS", model_zoo.get_checkpoint(STREET)], [])
    return released_export / "model.xml"


def _precisions(path: Path) -> list[str]:
    """Of the convolutions as they really run, with the hint that the package gives: the default may be bfloat16."""
    core = openvino_core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    running = core.compile_model(core.read_model(str(path)), "CPU", options).get_runtime_model()
    infos = [node.get_rt_info() for node in running.get_ordered_ops()]
    return [str(info["runtimePrecision"].value) for info in infos if "Convolution" in str(info["layerType"].value)]


class _Stack(ctypes.Structure):
    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _signal_stack() -> int | None:
    """Where this thread's stack for signals is."""
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.place


def _roi_align_inputs(path: Path) -> list[str]:
    """Kinds of operators that make the maps."""
    operators = openvino_core().read_model(str(path)).get_ops()
    aligns = [one for one in operators if one.get_type_name() == "ROIAlign"]
    return [one.input_value(0).get_node().get_type_name() for one in aligns]


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux delivers signals")
def test_files_that_are_closed_leave_the_thread_its_stack_for_signals(source: Path, tmp_path: Path):
    """With a core of OpenVINO each, the first signal that came then killed the process."""
    ExportedPredictor(source)
    before = _signal_stack()
    first, second = ExportedPredictor(source), ExportedPredictor(source)
    del first
    gc.collect()
    del second
    gc.collect()
    assert _signal_stack() == before
    image = read_image(DatasetCatalog.get("synthetic_street_val")[0]["file_name"], "BGR")
    write_int8(source, tmp_path / "int8.xml", [image], 1)
    gc.collect()
    assert _signal_stack() == before


def test_layers_run_in_8_bits_and_pq_stays(source: Path, tmp_path: Path):
    said: list[str] = []
    choice = choose_int8(source, tmp_path / "int8.xml", "synthetic_street_val", num_images=6, say=said.append)
    assert choice.float_groups == () and choice.float_pq - choice.pq <= 0.5
    assert len(said) == 2
    precisions = _precisions(tmp_path / "int8.xml")
    assert {"u8", "i8"} & set(precisions) and sum(p in {"u8", "i8"} for p in precisions) >= 0.7 * len(precisions)
    assert not {"u8", "i8"} & set(_precisions(source))
    assert all("FakeQuantize" in kinds for kinds in _roi_align_inputs(tmp_path / "int8.xml"))
    assert (tmp_path / "int8.bin").stat().st_size < 0.3 * source.with_suffix(".bin").stat().st_size


def test_layers_that_cost_too_much_stay_float(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a made-up measure: two groups cost two points of PQ each, nothing else costs anything."""
    costly = {"rpn_head", "box_head"}
    groups = layer_groups(source)
    assert costly < set(groups) and sum(groups.values()) > 50
    quantised: list[set[str]] = []
    monkeypatch.setattr(
        "panoptic_fpn_ext.export.int8.write_int8", lambda *args: quantised.append(set(groups) - set(args[4]))
    )
    monkeypatch.setattr(
        f"{INT8}._pq",
        lambda path, records: (80.0 - (2.0 * len(costly & quantised[-1]) if quantised else 0.0), [1] * len(records)),
    )
    choice = choose_int8(source, tmp_path / "int8.xml", "synthetic_street_val", num_images=2, say=lambda text: None)
    assert set(choice.float_groups) == costly and choice.pq == 80.0
    assert {group for group, pq in choice.pq_without.items() if pq > 76.0} == costly
    assert choice.all_int8_pq == 76.0 and set(list(choice.pq_without)[:2]) == costly


def test_chosen_groups_stay_float_beside_layers_in_8_bits(source: Path, tmp_path: Path):
    record = DatasetCatalog.get("synthetic_street_val")[0]
    image = read_image(record["file_name"], "BGR")
    write_int8(source, tmp_path / "int8.xml", [image], 1, ["rpn_head"])
    precisions = _precisions(tmp_path / "int8.xml")
    assert sum(p == "f32" for p in precisions) >= layer_groups(source)["rpn_head"]
    # Both read the same maps of the pyramid.
    found, expected = (ExportedPredictor(path)(image)["panoptic_seg"] for path in (tmp_path / "int8.xml", source))
    assert [(s["category_id"], s["isthing"]) for s in found[1]] == [
        (s["category_id"], s["isthing"]) for s in expected[1]
    ]
    assert (found[0] == expected[0]).float().mean() > 0.98
