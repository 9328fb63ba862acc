"""What the real commands print, return and leave untouched, run as processes on a tiny dataset."""

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bad_input_data import CONFIG, OPTS, TinyDataset
from places import REPOSITORY

from panoptic_fpn_ext import console

TRAIN_NET = REPOSITORY / "projects/panoptic_fpn/train_net.py"
LAZY_CONFIG = REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"
MODULES = ["evaluation", "model_zoo", "engine.join_networks", "engine.imagenet_weights", "data.synthetic_street"]
MODULES += ["data.cityscapes_panoptic", "data.convert", "data.check", "combine", "export", "report", "thresholds"]


SCRIPTS = sorted(
    str(path) for path in (REPOSITORY / "projects").glob("*/*.py") if "\nif __name__ ==" in path.read_text()
)


def _environment() -> dict[str, str]:
    # No options of the tests' own process.
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "", "PYTHONUNBUFFERED": "1"}


def _command(dataset: TinyDataset, output: Path, *flags: str, max_iter: int = 12) -> list[str]:
    command = [sys.executable, str(TRAIN_NET), "--config-file", str(CONFIG), *flags]
    command += ["--register", *dataset.registration("tiny"), *OPTS]
    return [*command, "OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", str(max_iter), "SOLVER.WARMUP_ITERS", "0"]


def _run(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(), **kwargs)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    return TinyDataset(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def training(
    dataset: TinyDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """OUTPUT_DIR of a training, and what it printed."""
    output = tmp_path_factory.mktemp("trained") / "output"
    return output, _run(_command(dataset, output))


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_training_prints_what_a_person_reads(training: tuple[Path, subprocess.CompletedProcess[str]]):
    output, done = training
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: tiny is trained on and evaluated on")
    first_loss = next(i for i, line in enumerate(lines) if line.startswith("Iteration "))
    assert first_loss <= 8 and len(lines) <= 40
    said = "\n".join(lines[:first_loss])
    assert "tiny to train on, tiny to be evaluated on" in said  # as --register names no dataset of the config
    assert "Classes: 2 things (ball, box), 2 stuff (grass, sky)" in said
    assert "Weights: none" in said and "tiny has 2 images with 8 segments" in said
    assert "left" in lines[first_loss]
    table = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert set(table[2:4]) == {"ball", "box"} and set(table[4:6]) == {"grass", "sky"}
    assert lines[-1].startswith(f"Written to {output}") and "model_final.pth" in lines[-1]


def test_the_log_has_everything_once_and_no_colours(training: tuple[Path, subprocess.CompletedProcess[str]]):
    output, done = training
    log = (output / "log.txt").read_text()
    assert "\033" not in log + done.stdout + done.stderr
    for once in ("META_ARCHITECTURE:", "(sem_seg_head): PanopticFPNSemSegHead", "train_net.py --config-file", "numpy "):
        assert log.count(once) == 1, once
    assert log.count("IoU=0.50:0.95 | area=   all | maxDets=100 ] =") == 4  # AP and AR, of boxes and of masks
    assert "d2.utils.events" in log or "detectron2.utils.events" in log
    assert "META_ARCHITECTURE" not in done.stdout and "Average Precision" not in done.stdout


def test_an_evaluation_touches_nothing_of_the_training(
    dataset: TinyDataset, training: tuple[Path, subprocess.CompletedProcess[str]]
):
    output, _ = training
    before = _contents(output)
    command = [sys.executable, str(TRAIN_NET), "--config-file", str(output / "config.yaml"), "--eval-only"]
    command += ["--register", *dataset.registration("tiny"), "MODEL.WEIGHTS", str(output / "model_final.pth")]
    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert f"Written to {output / 'inference_2'}" in done.stdout
    after = _contents(output)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("inference_2/") for name in set(after) - set(before))


def test_a_new_training_does_not_mix_with_another(
    dataset: TinyDataset, training: tuple[Path, subprocess.CompletedProcess[str]]
):
    output, _ = training
    before = _contents(output)
    done = _run(_command(dataset, output))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {output} holds a training already") and "--resume" in line
    assert _contents(output) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_ends_a_training_with_a_checkpoint(
    dataset: TinyDataset, tmp_path: Path, number: int, status: int, processes: int
):
    output = tmp_path / "output"
    several = ["--num-gpus", str(processes)] if processes > 1 else []
    command = _command(dataset, output, *several, max_iter=100_000)
    command += ["SOLVER.IMS_PER_BATCH", str(processes)]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=_environment(), start_new_session=True, preexec_fn=_hear_interrupts
        )
        try:
            _wait_for(lambda: "Iteration " in (tmp_path / "out").read_text(), process)
            process.send_signal(number)
            assert process.wait(120) == status, (tmp_path / "err").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):  # else it has ended
                os.killpg(process.pid, signal.SIGKILL)
    (said,) = [line for line in (tmp_path / "err").read_text().splitlines() if "To go on: " in line]
    (checkpoint,) = output.glob("model_*.pth")
    iteration = torch.load(checkpoint, weights_only=False)["iteration"]
    assert f"Stopped after iteration {iteration + 1} of 100000" in said
    go_on = [*shlex.split(said.partition("To go on: ")[2]), "SOLVER.MAX_ITER", str(iteration + 3)]
    done = _run(go_on)
    assert done.returncode == 0, done.stderr
    assert torch.load(output / "model_final.pth", weights_only=False)["iteration"] == iteration + 2


def _hear_interrupts() -> None:
    """A shell's background jobs, such as a whole test run may be, ignore SIGINT, and so do their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait_for(condition: object, process: "subprocess.Popen[bytes]", seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAXITER", "3"], "Did you mean SOLVER.MAX_ITER?"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_a_mistake_is_one_line(dataset: TinyDataset, tmp_path: Path, opts: list[str], words: str):
    done = _run([*_command(dataset, tmp_path / "output"), *opts])
    assert done.returncode == 2 and not (tmp_path / "output").exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line


def test_a_refused_training_leaves_nothing(dataset: TinyDataset, tmp_path: Path):
    done = _run([*_command(dataset, tmp_path / "made" / "output"), "MODEL.ROI_HEADS.NUM_CLASSES", "5"])
    assert done.returncode == 2 and "MODEL.ROI_HEADS.NUM_CLASSES is 5: set it to 2" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_of_a_mistake_is_in_the_log(tmp_path: Path):
    spoilt, output = TinyDataset(tmp_path / "spoilt"), tmp_path / "output"
    for number in (1, 2):
        spoilt.image(number).write_bytes(b"text")
    done = _run(_command(spoilt, output))
    assert done.returncode == 2
    *warned, line = done.stderr.splitlines()  # the check of the files before the training names them too
    assert not any(text.startswith("error: ") for text in warned)
    assert line.startswith("error: Image ") and f"The traceback is in {output / 'log.txt'}" in line
    log = (output / "log.txt").read_text()
    assert log.count("Exception during training:") + log.count("The run ended with an error:") == 1
    assert "Traceback (most recent call last)" in log


# Forks a process for each command, so that what all import is imported once, and ends it without taking the interpreter
# down, which lasts seconds. Its arguments: FOLDER COMMAND…; exit status, output and errors of each are left in FOLDER
# under its number.
_HELP = """
import os, runpy, sys
import panoptic_fpn_ext, detectron2.engine, detectron2.evaluation, matplotlib.figure, scipy.ndimage
for number, command in enumerate(sys.argv[2:]):
    pid = os.fork()
    if not pid:
        for descriptor, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[1]}/{number}.{end}", os.O_CREAT | os.O_WRONLY), descriptor)
        sys.argv = [command, "--help"]
        try:
            if command.endswith(".py"):
                sys.path.insert(0, os.path.dirname(command))
                runpy.run_path(command, run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
        raise SystemExit(f"{command} did not end")
    with open(f"{sys.argv[1]}/{number}.status", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""


@pytest.mark.slow
def test_commands_help_with_an_example(tmp_path: Path):
    commands = [*(f"panoptic_fpn_ext.{module}" for module in MODULES), *SCRIPTS]
    done = _run([sys.executable, "-c", _HELP, str(tmp_path), *commands])
    assert done.returncode == 0 and done.stderr == "" and done.stdout == ""
    for number, command in enumerate(commands):
        status, said, errors = ((tmp_path / f"{number}.{end}").read_text() for end in ("status", "out", "err"))
        assert status == "0" and errors == "", (command, errors)
        typed = Path(command).name if command in SCRIPTS else f"python -m {command}"
        assert typed in said.split("xample", 1)[1], command


def test_a_wrong_file_is_named(tmp_path: Path):
    text = tmp_path / "words.json"
    text.write_text("words")
    done = _run([sys.executable, "-m", "panoptic_fpn_ext.evaluation", str(text), str(text)])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and str(text) in line


def test_a_log_on_a_full_disk_is_one_line(capsys, monkeypatch):
    log, record = console._Log(), logging.LogRecord("a", logging.INFO, "", 0, "text", (), None)
    monkeypatch.setattr(console, "_log", log)
    stream = open("/dev/full", "a", buffering=1)  # noqa: SIM115
    log.write_to("/dev/full", stream)
    assert console.log_file() == "/dev/full"
    for _ in range(3):
        log.handle(record)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/dev/full cannot be written (No space left on device)" in said
    assert console.log_file() is None
    with contextlib.suppress(OSError):
        stream.close()
