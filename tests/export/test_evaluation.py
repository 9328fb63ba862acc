"""Exported files in place of checkpoints: train_net.py --eval-only and demo.py."""

import json
from pathlib import Path

import pytest
from bad_input_data import CONFIG, OPTS, TinyDataset, global_state_restored, project_script, train_net

from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.engine.checkpoints.model_files import EXPORTED_SUFFIXES
from panoptic_fpn_ext.export.__main__ import main as export
from panoptic_fpn_ext.export.runtimes import FORMATS

NAME = "tiny_exported"
COMBINE = "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"
DETECTS = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01", COMBINE, "0.05")

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyDataset, Path, Path]:
    """A dataset, a checkpoint and its file."""
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    root = tmp_path_factory.mktemp("exported")
    dataset = TinyDataset(root / "data")
    with global_state_restored():
        train_net(dataset, NAME, root / "output", "DATASETS.TEST", "()")
        weights = root / "output" / "model_final.pth"
        outputs = ["--outputs", "panoptic_seg,instances,sem_seg", "--images", str(dataset.images)]
        registered = ["--register", *dataset.registration(NAME)]
        command = [str(CONFIG), str(weights), str(root / "exported"), *outputs, *registered]
        assert export([*command, "--opts", *OPTS, *DETECTS, "DATASETS.TEST", f"('{NAME}',)"]) == 0
    return dataset, weights, root / "exported" / "model.onnx"


def _evaluated(run: tuple[TinyDataset, Path, Path], output: Path, weights: Path, *opts: str) -> dict:
    with global_state_restored():
        return train_net(run[0], NAME, output, "--eval-only", "MODEL.WEIGHTS", str(weights), *DETECTS, *opts)


@pytest.mark.slow
def test_every_evaluator_gives_the_same_figures(run, tmp_path):
    expected = _evaluated(run, tmp_path / "eager", run[1])
    found = _evaluated(run, tmp_path / "exported", run[2])
    assert set(expected) == set(found) == {"panoptic_seg", "sem_seg", "bbox", "segm"}
    for task, figures in expected.items():
        assert found[task] == pytest.approx(figures, abs=0.05, nan_ok=True), task
    with pytest.raises(ValueError, match="exported model, which has no parameters"), global_state_restored():
        train_net(run[0], NAME, tmp_path / "trained", "MODEL.WEIGHTS", str(run[2]))


@pytest.mark.slow
def test_thresholds_of_the_config_count_and_what_is_fixed_is_said(run, tmp_path, caplog):
    caplog.set_level("INFO")
    opts = (COMBINE, "1.0", "TEST.DETECTIONS_PER_IMAGE", "7")
    found = _evaluated(run, tmp_path / "exported", run[2], *opts)
    log = (tmp_path / "exported" / "inference" / "log.txt").read_text()
    assert found["panoptic_seg"]["PQ_th"] == 0
    assert (
        "TEST.DETECTIONS_PER_IMAGE is 100 in" in log and "INSTANCES_CONFIDENCE_THRESH 1.0 (the file says 0.05)" in log
    )


@pytest.mark.slow
def test_demo_takes_it(run, tmp_path, capsys):
    demo = project_script("panoptic_fpn/demo.py")
    command = ["--config-file", str(run[2]), "--input", str(run[0].images), "--output", str(tmp_path)]
    assert demo.main([*command, "--save-results", "--confidence-threshold", "0.06"]) == 0
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert len(content["annotations"]) == 2 and (tmp_path / "image_1.png").is_file()
    with pytest.raises(ValueError, match="cannot be changed in the exported model"):
        demo.main([*command, "--opts", "MODEL.WEIGHTS", str(run[2]), "INPUT.MIN_SIZE_TEST", "32"])


def test_a_predictor_of_weights_says_what_takes_an_exported_file():
    assert tuple(FORMATS.values()) == EXPORTED_SUFFIXES[: len(FORMATS)]
    with pytest.raises(ValueError, match="ExportedPredictor predicts images with it"):
        PanopticPredictor("model.onnx")
