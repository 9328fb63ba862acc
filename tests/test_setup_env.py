"""`make setup` keeps an environment that works."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from places import REPOSITORY

THIS = "{}.{}".format(*sys.version_info)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """.ci/setup_env.py with a `.venv` whose Python only says that it is 3.99; ``calls`` is what would be done."""
    spec = importlib.util.spec_from_file_location("setup_env", REPOSITORY / ".ci" / "setup_env.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(REPOSITORY / ".ci"))
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    for name, path in {"VENV": venv, "PYTHON": venv / "bin/python", "STAMP": venv / "setup-done"}.items():
        monkeypatch.setattr(module, name, path)
    _write_venv(venv, "3.99")
    module.calls = []
    module.really_install_everything = module.install_everything
    monkeypatch.setattr(module, "make_venv", lambda: module.calls.append("make"))
    monkeypatch.setattr(module, "install_everything", lambda build: module.calls.append(f"install {build}".strip()))
    return module


def _write_venv(venv: Path, version: str) -> None:
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    (venv / "pyvenv.cfg").write_text(f"version = {version}\n")
    (venv / "bin/python").write_text(f"#!/bin/sh\necho {version}\n")
    (venv / "bin/python").chmod(0o755)


def _run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["setup_env.py", *arguments])
    script.calls.clear()
    script.main()
    return list(script.calls)


def test_a_sound_environment_of_another_python_is_kept(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    assert _run(script, monkeypatch) == ["install"]  # what is missing, into what is there
    assert _run(script, monkeypatch) == []


def test_a_python_that_is_asked_for_replaces_another(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    _run(script, monkeypatch)
    assert _run(script, monkeypatch, "--this-python")[0] == "make"
    _write_venv(script.VENV, THIS)
    _run(script, monkeypatch)
    assert _run(script, monkeypatch, "--this-python") == []


def test_a_broken_environment_is_made_anew(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    (script.VENV / "bin/python").write_text("#!/bin/sh\nexit 1\n")
    assert _run(script, monkeypatch) == ["make", "install"]


def test_a_pytorch_without_cuda(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script, "is_cpu_only_platform", lambda: False)
    monkeypatch.setattr(script, "has_cuda_build", lambda: True)
    _run(script, monkeypatch)
    assert _run(script, monkeypatch, "--torch", "cpu") == ["install cpu"]
    monkeypatch.setattr(script, "has_cuda_build", lambda: False)
    assert _run(script, monkeypatch, "--torch", "cpu") == []


def test_a_small_disk_is_refused_before_any_download(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    free = 5 * 2**30
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(script, "is_cpu_only_platform", lambda: False)
    script.refuse_small_disk("")  # PyTorch is there
    monkeypatch.setattr(script, "can_import", lambda *args: False)
    with pytest.raises(script.StepFailed, match=r"7 GB, and 5\.0 GB are free in .*Free 2\.0 GB more .*TORCH=cpu"):
        script.refuse_small_disk("")
    script.refuse_small_disk("cpu")
    with (script.VENV / "half.bin").open("wb") as file:  # what a set-up that was interrupted left
        file.truncate(5 * 2**29)
    script.refuse_small_disk("")
    free = 2**27
    monkeypatch.setattr(script, "is_cpu_only_platform", lambda: True)
    with pytest.raises(script.StepFailed, match=r"3 GB, and 0\.1 GB are free .* larger disk\.$"):
        script.refuse_small_disk("")


def test_steps_are_counted(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(script, "pip", lambda title, *arguments: None)
    monkeypatch.setattr(script, "install_detectron2", lambda: "was there already")
    script.really_install_everything("")
    steps = [line for line in capsys.readouterr().out.splitlines() if " step " in line]
    assert [line.split(":")[0] for line in steps] == [f"[setup] step {i} of 5" for i in range(1, 6)]


def test_where_there_is_none_it_says_so(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    (script.VENV / "bin/python").write_text("#!/bin/sh\necho 'Available versions: 2.9.1, 2.9.0'\n")
    with pytest.raises(script.StepFailed, match="TORCH=cpu"):
        script.cpu_requirement()
    (script.VENV / "bin/python").write_text("#!/bin/sh\necho 'Available versions: 2.9.1, 2.9.0+cpu, 2.8.0+cpu'\n")
    assert script.cpu_requirement() == "torch==2.9.0+cpu"


def test_an_environment_behind_a_link_is_never_changed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    script.VENV.rename(tmp_path / "theirs")
    script.VENV.symlink_to(tmp_path / "theirs")
    python = tmp_path / "theirs/bin/python"
    answers = """#!/bin/sh
case "$2" in *needed*) echo {}; echo /elsewhere/panoptic_fpn_ext/__init__.py;; *) echo 3.99;; esac
"""
    python.write_text(answers.format(""))
    assert _run(script, monkeypatch) == []
    assert f"PYTHONPATH={REPOSITORY}" in capsys.readouterr().out
    monkeypatch.setattr(script, "has_cuda_build", lambda: True)
    for arguments, lack in (
        (["--this-python"], "another Python than this"),
        (["--torch", "cpu"], "a PyTorch with CUDA"),
    ):
        with pytest.raises(SystemExit, match=f"stays as it is, and has {lack}"):
            _run(script, monkeypatch, *arguments)
    for text, lack in (
        (answers.format("torch, cv2"), "no torch, cv2"),
        ("#!/bin/sh\nexit 1\n", "no Python that works"),
    ):
        python.write_text(text)
        with pytest.raises(SystemExit, match=f"has {lack}"):
            _run(script, monkeypatch)
    assert script.calls == [] and script.VENV.is_symlink() and not script.STAMP.exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "python3 .ci/setup_env.py"),
        (["PYTHON=python3.13"], "python3.13 .ci/setup_env.py --this-python"),
        (["TORCH=cpu"], "python3 .ci/setup_env.py --torch cpu"),
    ],
)
def test_what_make_runs(given: list[str], expected: str):
    # A `make` around this test hands down its level, which prints the folder, its flags and its variables.
    handed_down = ("MAKE", "MFLAGS", "PYTHON", "TORCH")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(handed_down)}
    command = ["make", "-n", "setup", *given]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.split()) == expected
