"""The report of a run: TEST.REPORT, the folder of a run on the command line, curves, and what TensorBoard gets."""

import json
import os
from pathlib import Path

import pytest
from bad_input_data import TinyDataset, global_state_restored, train_net
from made_results import MadeResults
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from panoptic_fpn_ext.engine import build_dataset_evaluator
from panoptic_fpn_ext.evaluation.panoptic_evaluator import EVALUATION_RECORD
from panoptic_fpn_ext.report.__main__ import main
from panoptic_fpn_ext.report.curves import training_section
from panoptic_fpn_ext.report.runs import _run_name, find_evaluation


def test_a_training_ends_with_its_report_and_tensorboard_shows_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "run"

    def again(*_: object) -> None:
        pytest.fail("the predictions were compared once more")

    monkeypatch.setattr("panoptic_fpn_ext.report.writer.explain_files", again)
    with global_state_restored():
        train_net(TinyDataset(tmp_path / "data"), "tiny_report", output, "TEST.REPORT", "True")
    page = output / "inference" / "report.html"
    assert "run on tiny_report" in page.read_text(encoding="utf-8")
    quality = json.loads((output / "inference" / "panoptic_quality.json").read_text())
    written = json.loads(page.with_suffix(".json").read_text())["models"][0]
    assert written["All"]["pq"] == pytest.approx(100 * quality["All"]["pq"], abs=1e-9)

    events = EventAccumulator(str(output), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == ["tiny_report/0", "tiny_report/1"]
    assert any(tag.startswith("PQ_by_class/tiny_report/") for tag in events.Tags()["scalars"])

    monkeypatch.undo()
    main([str(output), "--output", str(tmp_path / "again.html")])
    said = capsys.readouterr().out
    assert f"Evaluation of tiny_report in {output / 'inference'}\n" in said and "Written: " in said
    again = (tmp_path / "again.html").read_text(encoding="utf-8")
    assert 'id="chart-training-losses"' in again
    assert '"photo": "' in again


def test_the_report_is_of_the_image_itself_not_of_its_views(tmp_path: Path):
    """Which are evaluated after it; their folder can be named, and the title says so."""
    record = {"dataset": "d", "panoptic_json": "a", "panoptic_root": "b"}
    for number, name in enumerate(["inference", "inference_TTA", "inference_2", "inference_2_TTA"]):
        path = tmp_path / "run" / name / EVALUATION_RECORD
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
        os.utime(path, (number, number))
    assert find_evaluation(str(tmp_path / "run"))["folder"] == str(tmp_path / "run/inference_2")
    views = find_evaluation(str(tmp_path / "run/inference_2_TTA"))["folder"]
    assert views == str(tmp_path / "run/inference_2_TTA")
    assert _run_name(views) == "run with test-time augmentation"
    assert _run_name(str(tmp_path / "run/inference_2")) == "run"


def test_two_runs_against_each_other(tmp_path: Path):
    made = MadeResults(tmp_path, models=("one", "two"))
    record = {"dataset": "d", "panoptic_json": str(made.gt), "panoptic_root": str(tmp_path / "gt")}
    for path in made.predictions:
        (path.parent / EVALUATION_RECORD).write_text(json.dumps({**record, "image_root": str(made.images)}))
    folders, page = [str(path.parent) for path in made.predictions], tmp_path / "runs.html"
    main([*folders, "--output", str(page)])
    main(made.command("--output", str(tmp_path / "files.html")))
    runs, files = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("runs", "files"))
    assert runs == files
    assert [model["name"] for model in runs["models"]] == ["one", "two"]
    assert '"photo": "' in page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="one model or two, got predictions of 3"):
        main([*folders, folders[0]])
    other = made.predictions[1].parent / EVALUATION_RECORD
    other.write_text(json.dumps({**record, "panoptic_json": str(tmp_path / "other.json")}))
    with pytest.raises(ValueError, match=r"evaluated on one dataset, but .*one on .*gt\.json and .*two on .*other"):
        main(folders)


@pytest.mark.parametrize("name", ["folder", "page.json"])
def test_a_page_is_a_file_of_its_own(tmp_path: Path, name: str):
    made = MadeResults(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=rf"{name} is to be a page"):
        main(made.command("--output", str(tmp_path / name)))


def test_a_folder_without_an_evaluation_says_what_to_do(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="Evaluate first"):
        main([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="alone is not enough"):
        main([str(tmp_path / "predictions.json")])


def test_detectron2s_evaluator_keeps_nothing_to_report_on(tmp_path: Path, street_datasets: tuple[str, str]):
    with pytest.raises(ValueError, match=r"TEST\.REPORT needs"):
        build_dataset_evaluator(
            street_datasets[1], str(tmp_path), panoptic_evaluator="COCOPanopticEvaluator", report=True
        )


def test_curves_skip_what_is_cut_off_and_stay_short(tmp_path: Path):
    path = tmp_path / "metrics.json"
    lines = [json.dumps({"iteration": i, "total_loss": 1 / (i + 1), "lr": 0.1}) for i in range(1000)]
    lines[3] = json.dumps({"iteration": 3, "total_loss": float("nan")})
    lines.append(json.dumps({"iteration": 1000, "panoptic_seg/PQ": 50.0}))
    path.write_text("\n".join([*lines, '{"iteration": 1001, "total_']))
    (section,) = training_section(str(path))
    charts = {chart.id: chart for chart in section.charts()}
    assert set(charts) == {"training-losses", "training-quality", "training-rate"}
    losses = charts["training-losses"]
    assert len(losses.labels) <= 401
    assert (losses.labels[0], losses.labels[-1]) == (0, 999)
    assert charts["training-quality"].series[0].values == [50.0]
    path.write_text("")
    assert training_section(str(path)) == []
