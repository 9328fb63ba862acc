"""The command that exports, on the released model."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from panoptic_fpn_ext.data import read_image
from panoptic_fpn_ext.export import predict
from panoptic_fpn_ext.export.__main__ import main
from panoptic_fpn_ext.export.runtimes import open_session, read_description
from panoptic_fpn_ext.export.self_check import check_agreement

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


@pytest.mark.slow
def test_the_released_model_becomes_files_that_say_the_same(released_export):
    said = (released_export / "said.txt").read_text(encoding="utf-8")
    files = {path.name for path in released_export.iterdir()} - {"said.txt"}
    runtimes = 2 if "model.xml" in files else 1
    assert said.count("7 of 7") == runtimes and "all files agree with PyTorch" in said
    assert files - {"model.xml", "model.bin"} == {"README.md", "model.onnx", "predict.py"}


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="onnx, openvino"):
        main([NAME, "zoo", str(tmp_path), "--format", "tflite"])
    with pytest.raises(ValueError, match="no format for AOTInductor"):
        main([NAME, "zoo", str(tmp_path), "--format", "onnx,aoti"])


@pytest.mark.parametrize("name", ["README.md", "predict.py"])
def test_files_that_no_export_wrote_stay(tmp_path, name):
    (tmp_path / name).write_text("somebody's own")
    with pytest.raises(ValueError, match=rf"has a file {name} that no export wrote"):
        main([NAME, "zoo", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "somebody's own"


def test_an_unknown_dataset_to_calibrate_with_is_refused_first(tmp_path):
    with pytest.raises(KeyError, match=r"'nope' \(--int8\) is not registered"):
        main([NAME, "zoo", str(tmp_path / "exported"), "--format", "openvino", "--int8", "nope"])
    assert not (tmp_path / "exported").exists()


def test_predict_py_needs_no_pytorch():
    source = Path(predict.__file__).read_text(encoding="utf-8")
    lines = [line.split() for line in source.splitlines() if line.strip().startswith(("import ", "from "))]
    assert {words[1] for words in lines} == {"argparse", "functools", "json", "os", "sys", "typing"} | {
        *("zipfile", "numpy", "PIL"),
        *("onnxruntime", "openvino"),  # one of these, or for .pt2 the next two
        *("torch", "torchvision"),
    }


def test_predict_py_reads_images_as_the_package_does(tmp_path):
    values = np.linspace(0, 65535, 12 * 9).reshape(12, 9)
    kinds = {"grey16.png": values.astype(np.uint16), "grey8.png": (values / 257).astype(np.uint8)}
    for name, array in kinds.items():
        Image.fromarray(array).save(tmp_path / name)
        np.testing.assert_array_equal(predict.read_rgb(str(tmp_path / name)), read_image(str(tmp_path / name), "RGB"))
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "text.jpg").write_text("no image")
    for name, said in (
        ("float.tif", "no black and white"),
        ("text.jpg", "cannot be read"),
        ("none.jpg", "cannot be read"),
    ):
        with pytest.raises(SystemExit, match=said):
            predict.read_rgb(str(tmp_path / name))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("none.onnx", "photo.png"), "no file none.onnx"),
        (("model.onnx", "none.png"), "no file none.png"),
        (("model.onnx", "photo.png", "none/overlay.png"), "no folder none"),
        (("model.onnx", "photo.png", "overlay"), "overlay.png"),
        (("model.onnx", "photo.png", "overlay.psd"), "overlay.psd.png"),
        (("model.onnx", "photo.png", "./photo.png"), "photo.png would be written over"),
    ],
)
def test_predict_py_says_what_is_missing_before_it_loads_a_model(tmp_path, monkeypatch, names, said):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    Path("model.onnx").touch()
    with pytest.raises(SystemExit, match=said):
        predict.main(*names)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["model.onnx", "model.xml", "model.bin"])
def test_damaged_files_are_one_sentence(released_export, tmp_path, damaged):
    """Of OpenVINO's two, people also copy one alone."""
    if damaged != "model.onnx":
        pytest.importorskip("openvino")
    model = tmp_path / ("model.onnx" if damaged == "model.onnx" else "model.xml")
    for name in {model.name, damaged}:
        shutil.copyfile(released_export / name, tmp_path / name)
    half = (released_export / damaged).read_bytes()[: (released_export / damaged).stat().st_size // 2]
    (tmp_path / damaged).write_bytes(half)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    for open_file in (open_session, read_description):
        with pytest.raises(ValueError, match=f"{model.name} cannot be opened by"):
            open_file(model)
    with pytest.raises(SystemExit, match=f"{model.name} cannot be opened: "):
        predict.main(str(model), str(tmp_path / "photo.png"))


def _predictor(panoptic_seg: list[list[int]], *segments: tuple[int, float]) -> Any:
    infos = [{"id": i, "category_id": c, "isthing": True, "score": s} for i, (c, s) in enumerate(segments, start=1)]
    return lambda image: {"panoptic_seg": (torch.tensor(panoptic_seg), infos)}


def test_the_check_forgives_tied_scores_and_nothing_else():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    reference = _predictor([[1, 1], [2, 2]], (3, 0.9), (4, 0.9))
    others = {
        "tied": _predictor([[2, 2], [1, 1]], (4, 0.9), (3, 0.9)),
        "another class": _predictor([[1, 1], [2, 2]], (3, 0.9), (5, 0.9)),
        "another pixel": _predictor([[1, 1], [2, 1]], (3, 0.9), (4, 0.9)),
    }
    found, _ = check_agreement([image], reference, others)
    assert {name: (one.equal, one.same_segments) for name, one in found.items()} == {
        "tied": (4, 1),
        "another class": (4, 0),
        "another pixel": (3, 1),
    }
    assert [name for name, one in found.items() if one.is_good] == ["tied"]
