"""The demo's road from data to images, on a dataset that is drawn in a moment."""

import json
import signal
from pathlib import Path

import pytest
from bad_input_data import CONFIG, project_script

from panoptic_fpn_ext.command import Interrupted

run_demo = project_script("panoptic_fpn/run_demo.py")

pytestmark = pytest.mark.usefixtures("restored_state")


def test_it_trains_evaluates_leaves_images_and_ends_with_the_table(
    street_datasets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train, val = street_datasets
    opts = ["DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{val}',)", "MODEL.DEVICE", "cpu"]
    opts += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "1"]
    opts += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
    run_demo.main(["--config-file", str(CONFIG), "--output", str(tmp_path), *opts])
    images = {path.name for path in (tmp_path / "images").iterdir()}
    assert images == {"photographs.jpg", "sheet.jpg", *(f"street_val_{index:06d}.png" for index in range(4))}
    assert {"PQ", "SQ_th", "RQ_st"} <= set(json.loads((tmp_path / "results.json").read_text())["panoptic_seg"])
    said = capsys.readouterr().out
    assert f"image by image: {tmp_path / 'report.html'}" in said
    assert 'id="chart-training-losses"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said.rstrip().endswith(f"all numbers: {tmp_path}")
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in table[-3:]] == ["All", "Things", "Stuff"]
    assert "META_ARCHITECTURE" not in said
    assert (tmp_path / "log.txt").read_text().count("META_ARCHITECTURE") == 1


def test_an_interrupted_run_goes_on_and_a_finished_one_starts_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "demo"
    output.mkdir()
    (output / "last_checkpoint").write_text("model_0000099.pth")
    run_demo.set_aside_finished_run(output)
    assert "interrupted: going on from model_0000099.pth" in capsys.readouterr().out
    assert (output / "last_checkpoint").exists()
    (output / "results.json").write_text("{}")
    run_demo.set_aside_finished_run(output)
    assert f"kept in {tmp_path / 'demo_2'}" in capsys.readouterr().out
    assert not output.exists()
    assert {path.name for path in (tmp_path / "demo_2").iterdir()} == {"last_checkpoint", "results.json"}


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupt(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(run_demo, "predict_photographs", interrupt)
    with pytest.raises(Interrupted) as caught:
        run_demo.main(["--output", str(tmp_path)])
    assert caught.value.signal_number == signal.SIGTERM
    assert "To go on from what is done: " in capsys.readouterr().err

    def stop(*_: object) -> None:
        raise Interrupted(signal.SIGINT, "Stopped after iteration 3 of 9.")

    monkeypatch.setattr(run_demo, "predict_photographs", stop)
    with pytest.raises(Interrupted, match="Stopped after iteration 3"):
        run_demo.main(["--output", str(tmp_path)])
    assert "To go on" not in capsys.readouterr().err
