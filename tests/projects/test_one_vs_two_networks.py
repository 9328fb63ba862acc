"""The losses that the experiment with one network and two draws."""

import json
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from bad_input_data import project_script
from config_files import CONFIGS
from PIL import Image
from places import REPOSITORY

from panoptic_fpn_ext.engine.experiment import Experiment, _claim, _command, figures, run_series

RUN = REPOSITORY / "projects/one_vs_two_networks/run.py"
SEMANTIC, INSTANCE = "semantic loss", "losses of boxes and masks"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    """The script as a module; scripts of other projects have its name, too."""
    spec = util.spec_from_file_location("one_vs_two_networks", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _training(folder: Path, semantic: float, instance: float, lines: list[dict]) -> Path:
    folder.mkdir()
    config = {"SEM_SEG_HEAD": {"LOSS_WEIGHT": semantic}, "PANOPTIC_FPN": {"INSTANCE_LOSS_WEIGHT": instance}}
    (folder / "config.yaml").write_text(json.dumps({"MODEL": config}))  # JSON is YAML
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _logged(iteration: int, loss: float) -> dict:
    return {"iteration": iteration, **{f"loss_{part}": loss for part in ("sem_seg", "cls", "box_reg", "mask")}}


def test_losses_are_shown_without_their_weights(experiment: ModuleType, tmp_path: Path) -> None:
    folder = _training(tmp_path / "run", 0.5, 0.25, [_logged(19, 2.0), _logged(39, 1.0), {"iteration": 39, "PQ": 7.0}])
    assert experiment.learning_curve(folder, SEMANTIC) == {19: 4.0, 39: 2.0}
    assert experiment.learning_curve(folder, INSTANCE) == {19: 24.0, 39: 12.0}


def test_what_was_trained_again_after_an_interruption_counts(experiment: ModuleType, tmp_path: Path) -> None:
    folder = _training(tmp_path / "run", 1.0, 1.0, [_logged(19, 2.0), _logged(39, 9.0), _logged(39, 1.0)])
    assert experiment.learning_curve(folder, SEMANTIC) == {19: 2.0, 39: 1.0}


def test_a_loss_of_weight_0_has_no_curve(experiment: ModuleType, tmp_path: Path) -> None:
    folder = _training(tmp_path / "run", 0.0, 1.0, [_logged(19, 0.0)])
    assert experiment.learning_curve(folder, SEMANTIC) == {}


def test_a_training_without_its_log_has_no_curve(experiment: ModuleType, tmp_path: Path) -> None:
    assert experiment.learning_curve(tmp_path, SEMANTIC) == {}


def test_a_line_that_was_cut_off_is_left_out(experiment: ModuleType, tmp_path: Path) -> None:
    folder = _training(tmp_path / "run", 1.0, 1.0, [_logged(19, 2.0)])
    with (folder / "metrics.json").open("a") as f:
        f.write('{"iteration": 39, "loss_se')
    assert experiment.learning_curve(folder, SEMANTIC) == {19: 2.0}


def test_figures_that_some_runs_lack(experiment: ModuleType) -> None:
    row = {"system": "one", **{key: [1.0, None, 3.0] for key in experiment.METRICS}, "AP": [None, None, None]}
    cells = experiment.quality_table([row]).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[2:4]] == ["–", "2.0 (1.0–3.0) of 2 runs"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_of_another_config_is_refused(tmp_path: Path, is_finished: bool) -> None:
    """Also where it left a checkpoint only, from which the other one would go on."""
    config = RUN.parent / "configs/street/one_network.yaml"
    folder = tmp_path / "run"
    experiment = Experiment("run", str(config), ("SEED", "3"))
    _claim(folder, _command(experiment, folder, (), ()))
    name = "results.json" if is_finished else "last_checkpoint"
    (folder / name).write_text('{"results": 1}' if is_finished else "model_0000099.pth")
    for changed, key in ((("SEED", "3", "SOLVER.MAX_ITER", "7"), "SOLVER.MAX_ITER: 7"), (("SEED", "4"), "SEED: 4")):
        with pytest.raises(ValueError, match=f"  here   {key}\n"):
            run_series([Experiment("run", str(config), changed)], str(tmp_path))
    with pytest.raises(ValueError, match="  here   --register a b c d\n"):
        run_series([experiment], str(tmp_path), [["a", "b", "c", "d"]])


def test_the_same_config_is_the_same_run(tmp_path: Path) -> None:
    """Under another path, with the default of a key written out, and after the series was moved."""
    config = RUN.parent / "configs/street/one_network.yaml"
    _claim(tmp_path / "before/run", _command(Experiment("run", str(config), ("SEED", "3")), tmp_path, (), ()))
    (tmp_path / "before/run/results.json").write_text('{"results": 1}')
    (tmp_path / "before").rename(tmp_path / "after")
    moved = tmp_path / "moved.yaml"
    moved.write_text(f"_BASE_: {config}\nSEED: 3\nMODEL:\n  RPN:\n    NMS_THRESH: 0.7\n")
    assert run_series([Experiment("run", str(moved))], str(tmp_path / "after")) == {"run": {"results": 1}}


def test_a_run_that_nobody_recorded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text('{"results": 1}')
    with pytest.raises(ValueError, match="  there  not recorded\n"):
        run_series([Experiment("run", str(RUN.parent / "configs/street/one_network.yaml"))], str(tmp_path))


def test_seeds_that_were_logged_at_different_iterations_share_a_plot(experiment: ModuleType, tmp_path: Path) -> None:
    for file in experiment.SYSTEMS.values():
        for seed, last in ((1, 59), (2, 39)):
            lines = [_logged(i, 1.0 + seed) for i in range(19, last + 1, 20)]
            _training(tmp_path / f"{Path(file).stem}_seed_{seed}", 1.0, 1.0, lines)
    experiment.plot_learning_curves(tmp_path, seeds=2)
    with Image.open(tmp_path / "learning_curves.png") as image:
        assert image.size == (1200, 480)


def test_what_a_dataset_cannot_tell_is_no_figure() -> None:
    results = {"panoptic_seg": {"PQ": 3.0, "PQ_th": 2.0, "PQ_st": None}, "segm": {"AP": 1.0}}
    assert figures({"results": results}) == {"AP": 1.0, "PQ_Th": 2.0, "mIoU": None, "PQ_St": None, "PQ": 3.0}


def test_costs_of_a_system_whose_time_is_not_known(experiment: ModuleType) -> None:
    rows = [{"system": "two", "seconds": None}, {"system": "one", "seconds": 0.5}]
    table = experiment.cost_table(rows, [{"config": "a", "parameters": 2.0}, {"config": "b", "parameters": 1.0}])
    first, second = ([cell.strip() for cell in line.split("|")[2:4]] for line in table.splitlines()[2:])
    assert (first, second) == (["2 (1.00)", "–"], ["1 (0.50)", "0.5"])


def test_a_run_is_known_by_its_schedule_and_by_what_its_files_hold(tmp_path: Path) -> None:
    """A warm-up that was typed stays, one that was not follows the number of iterations."""
    config, weights = CONFIGS / "User-PanopticSegmentation/panoptic_fpn_efficientnet_lite0.yaml", tmp_path / "a.pth"
    weights.write_bytes(b"one")
    typed = ("SOLVER.MAX_ITER", "300", "MODEL.WEIGHTS", str(weights))
    _claim(tmp_path / "run", _command(Experiment("run", str(config), typed), tmp_path, (), ()))
    (tmp_path / "run/results.json").write_text('{"results": 1}')
    assert run_series([Experiment("run", str(config), typed)], str(tmp_path)) == {"run": {"results": 1}}
    with pytest.raises(ValueError, match=r"here   SOLVER\.WARMUP_ITERS: 100\n"):
        run_series([Experiment("run", str(config), (*typed, "SOLVER.WARMUP_ITERS", "100"))], str(tmp_path))
    weights.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"here   content of MODEL\.WEIGHTS: [0-9a-f]{64}\n"):
        run_series([Experiment("run", str(config), typed)], str(tmp_path))


def test_rows_that_options_would_falsify_are_refused(tmp_path: Path, monkeypatch) -> None:
    words = ["causes.py", "--only", "4 times as long", "--output", str(tmp_path), "--opts", "SOLVER.MAX_ITER", "50"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(ValueError, match=r"--opts: SOLVER\.MAX_ITER is set for each run of the series"):
        project_script("one_vs_two_networks/causes.py").main()


@pytest.mark.parametrize(
    ("opts", "said"),
    [
        (["SEED", "7"], "SEED is set for each run"),
        (["OUTPUT_DIR", "x"], "OUTPUT_DIR is set for each run"),
        (["SOLVER.MAX_ITER"], r"alone: SOLVER\.MAX_ITER"),
    ],
)
def test_options_of_a_series_are_heard_or_refused(tmp_path: Path, opts: list[str], said: str) -> None:
    run = Experiment("run", str(RUN.parent / "configs/street/one_network.yaml"), ("SEED", "1"))
    with pytest.raises(ValueError, match=said):
        run_series([run], str(tmp_path), opts=opts)
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_the_data_is_named_and_can_be_mended(tmp_path: Path) -> None:
    """The run that never began does not keep its folder from the one with the right path."""
    run = Experiment("run", str(RUN.parent / "configs/street/one_network.yaml"))
    for name in ("missing_a", "missing_b"):
        with pytest.raises(ChildProcessError, match=rf"(?s)the others are kept\. It said:\nerror: .*{name}"):
            run_series([run], str(tmp_path), [["mine", f"{tmp_path}/{name}", f"{tmp_path}/pngs", f"{tmp_path}/a.json"]])


@pytest.mark.parametrize("name", ["results.json", "identity.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, name: str) -> None:
    run = Experiment("run", str(RUN.parent / "configs/street/one_network.yaml"))
    _claim(tmp_path / "run", _command(run, tmp_path, (), ()))
    (tmp_path / "run/results.json").write_text('{"results": 1}')
    (tmp_path / "run" / name).write_text('{"results": {')
    with pytest.raises(ValueError, match=rf"{name} is not valid JSON"):
        run_series([run], str(tmp_path))
