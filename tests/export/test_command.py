"""The command that exports, on the released model."""

from pathlib import Path

import pytest

from panoptic_fpn_ext.export import predict
from panoptic_fpn_ext.export.__main__ import main

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


@pytest.mark.slow
def test_the_released_model_becomes_one_file_that_says_the_same(tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert main([NAME, "zoo", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "7 of 7" in said and "all files agree with PyTorch" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.onnx", "predict.py"]


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="onnx, openvino"):
        main([NAME, "zoo", str(tmp_path), "--format", "tflite"])


def test_predict_py_needs_no_pytorch():
    source = Path(predict.__file__).read_text(encoding="utf-8")
    lines = [line.split() for line in source.splitlines() if line.strip().startswith(("import ", "from "))]
    assert {words[1] for words in lines} == {"json", "sys", "typing", "numpy", "PIL", "onnxruntime", "openvino"}
