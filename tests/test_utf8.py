"""Text is in UTF-8 whatever the locale is: also in runs in the C locale with Python's own remedies off."""

import ast
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input_data import OPTS, TinyDataset
from detectron2.config import LazyConfig, get_cfg
from places import REPOSITORY

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine.settings.config_keys import merge_file
from panoptic_fpn_ext.utf8 import as_text, utf8_configs

NAME = "straße_路"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _run(*command: str, expected: int = 0) -> str:
    environment = {**os.environ, **C_LOCALE, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, *command], capture_output=True, env=environment, cwd=REPOSITORY)
    output = (result.stdout + result.stderr).decode("utf-8", "replace")
    assert result.returncode == expected, output
    return output


def _dataset(root: Path) -> TinyDataset:
    """Categories of other scripts, in a JSON with a byte-order mark."""
    dataset = TinyDataset(root)
    dataset.content = copy.deepcopy(dataset.content)
    for category, name in zip(dataset.content["categories"], ("мяч", "箱", "травa", "Himmel über"), strict=True):
        category["name"] = name
    dataset.json.write_text(json.dumps(dataset.content, ensure_ascii=False), encoding="utf-8-sig")
    return dataset


@pytest.mark.slow
def test_a_run_in_the_c_locale(tmp_path: Path):
    dataset = _dataset(tmp_path / "data")
    base = tmp_path / "base.yaml"
    street = REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow_demo.yaml"
    base.write_text(f"# Größe\n_BASE_: {street}\nMODEL:\n  MASK_ON: True # 面具\n", encoding="utf-8-sig")
    config = tmp_path / "config.yaml"
    datasets = f"DATASETS:\n  TRAIN: ('{NAME}',)\n  TEST: ('{NAME}',)\n"
    config.write_text(f"_BASE_: base.yaml\n# für Straßen\n{datasets}", encoding="utf-8")
    output = tmp_path / "output"
    options = [*OPTS, "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(output)]
    registration = ["--register", *dataset.registration(NAME)]
    _run("projects/panoptic_fpn/train_net.py", "--config-file", str(config), *registration, *options)
    last = json.loads((output / "metrics.json").read_text(encoding="utf-8").splitlines()[-1])
    assert {"panoptic_seg/PQ", "sem_seg/IoU-травa", "segm/AP-箱"} <= set(last)
    predictions = output / "inference" / "predictions.json"
    assert json.loads(predictions.read_text(encoding="utf-8"))["categories"][1]["name"] == "箱"
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    merge_file(cfg, str(output / "config.yaml"))
    assert cfg.DATASETS.TRAIN == (NAME,)
    weights = ["--opts", *OPTS, "MODEL.WEIGHTS", str(output / "model_final.pth")]
    arguments = ["--config-file", str(config), *registration, "--input", str(dataset.images)]
    _run("projects/panoptic_fpn/demo.py", *arguments, "--output", str(tmp_path / "overlays"), *weights)
    _run("projects/panoptic_fpn/train_net.py", "--config-file", str(config), *registration, "--eval-only", *weights[1:])


@pytest.mark.slow
def test_the_evaluation_in_the_c_locale(tmp_path: Path):
    dataset = _dataset(tmp_path / "data")
    folders = ("--gt-folder", str(dataset.panoptic), "--pred-folder", str(dataset.panoptic))
    out = tmp_path / "out.json"
    files = (str(dataset.json), str(dataset.json))
    printed = _run("-m", "panoptic_fpn_ext.evaluation", *files, *folders, "--json", str(out))
    assert "\\u7bb1" in printed and "100.000" in printed
    assert json.loads(out.read_text(encoding="utf-8"))["per_class"][1]["name"] == "箱"
    dataset.content["categories"][1]["isthing"] = "箱"
    dataset.save()
    printed = _run("-m", "panoptic_fpn_ext.evaluation", *files, *folders, expected=2)
    assert "isthing must be 0 or 1" in printed and "Traceback" not in printed


def test_lazy_configs_with_marks_and_any_script(tmp_path: Path):
    (tmp_path / "base.py").write_text("# 基\nmodel = dict(name='箱')\n", encoding="utf-8")
    (tmp_path / "config.py").write_text(
        "# für\nfrom .base import model\nother = dict(name='ß')\n", encoding="utf-8-sig"
    )
    with utf8_configs():
        cfg = LazyConfig.load(str(tmp_path / "config.py"))
        LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
        again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert cfg.model.name == again.model.name == "箱" and again.other.name == "ß"


@pytest.mark.parametrize("word", ["straße_路", "plain", ""])
def test_words_of_the_command_line(word: str):
    in_c_locale = word.encode().decode("ascii", "surrogateescape")
    assert as_text(in_c_locale) == as_text(word) == word
    assert as_text("\udcff") == "\udcff"  # no UTF-8


def _opens_text_without_encoding(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    modes = [ast.unparse(a) for a in [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]]
    if name not in ("open", "read_text", "write_text") or owner in ("Image", "os", "webbrowser"):
        return False
    if name == "open" and any("b" in mode.strip("'") and len(mode) <= 5 for mode in modes):
        return False
    return not any(keyword.arg in ("encoding", None) for keyword in node.keywords)


def test_every_text_file_is_opened_with_an_encoding():
    files = [*(REPOSITORY / "panoptic_fpn_ext").rglob("*.py"), *(REPOSITORY / "projects").rglob("*.py")]
    wrong = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _opens_text_without_encoding(node)
    ]
    assert not wrong
