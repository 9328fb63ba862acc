"""Checkpoints are written as a whole or not at all, and a run goes on from the newest sound one."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input_data import truncate
from torch import nn

from panoptic_fpn_ext.engine import PanopticCheckpointer
from panoptic_fpn_ext.engine.checkpoints import checkpoint as checkpoint_module
from panoptic_fpn_ext.whole_files import inside, whole_file


class _State:
    """Something beside the model that is checkpointed."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def _checkpointer(folder: Path, step: int = 0, **kwargs: Any) -> PanopticCheckpointer:
    model, state = nn.Linear(64, 64), _State()
    nn.init.constant_(model.weight, step)
    state.step = step
    return PanopticCheckpointer(model, str(folder), trainer=state, **kwargs)


def _save(folder: Path, *steps: int, **kwargs: Any) -> None:
    for step in steps:
        _checkpointer(folder, step, **kwargs).save(f"model_{step:07d}", iteration=step)


def _resumed(folder: Path) -> int:
    checkpointer = _checkpointer(folder, 99)
    checkpointer.resume_or_load("", resume=True)
    step: int = checkpointer.checkpointables["trainer"].step
    assert (checkpointer.model.weight == step).all()
    return step


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(116, "Stale file handle")])
def test_a_failing_write_leaves_what_was_there(error: OSError, tmp_path: Path, monkeypatch):
    _save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = torch.save

    def fails(content: Any, f: Any) -> None:
        class Full:
            count = 0

            def write(self, data: bytes) -> int:
                self.count += len(data)
                if self.count > 5000:
                    raise error
                return int(f.write(data))

            def flush(self) -> None: ...

        write(content, Full())

    monkeypatch.setattr(checkpoint_module.torch, "save", fails)
    for step in (1, 2):  # over itself, and beside it
        with pytest.raises(OSError, match=f"{error.strerror}.*--resume"):
            _save(tmp_path, step)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_what_was_there(tmp_path: Path):
    _save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, former[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            _save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert _resumed(tmp_path) == 1


def test_a_folder_that_vanished_is_one_line(tmp_path: Path):
    checkpointer = _checkpointer(tmp_path / "gone")
    with pytest.raises(OSError, match="bring the folder back"):
        checkpointer.save("model_0000001")


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "foreign", "text", "gone", "elsewhere", "none"])
def test_goes_on_from_the_newest_sound_checkpoint(damage: str, tmp_path: Path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    _save(folder, 1, 2, 3)
    last = folder / "model_0000003.pth"
    if damage == "cut":
        truncate(last, 0.7)
    elif damage == "bit":
        data = bytearray(last.read_bytes())
        data[len(data) // 2] ^= 4
        last.write_bytes(data)
    elif damage == "empty":
        last.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"state_dict": nn.Linear(3, 3).state_dict()}, last)
    elif damage == "text":
        last.write_text("words")
    elif damage == "gone":
        last.unlink()
    elif damage == "elsewhere":
        last.rename(tmp_path / last.name)
        (folder / "last_checkpoint").write_text(f"../{last.name}")
    else:
        last.unlink()
        (folder / "last_checkpoint").unlink()
    assert _resumed(folder) == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "sound" in r.getMessage()]
    assert len(warnings) == (damage != "none")
    assert all("model_0000003.pth: " in text and text.endswith("model_0000002.pth.") for text in warnings)


def test_a_checkpoint_that_is_cut_anywhere_is_not_sound(tmp_path: Path):
    _save(tmp_path, 1, 2)
    path = tmp_path / "model_0000002.pth"
    data = path.read_bytes()
    for length in (0, 1, 3, 4, 30, 1000, len(data) // 2, len(data) - 23, len(data) - 1):
        path.write_bytes(data[:length])
        assert _resumed(tmp_path) == 1, length


@pytest.mark.parametrize(
    "note", [b"", b"\n", b"\xff\x00\x80model", b"/model_0000001.pth", b"model_0000009.pth", b"folder"]
)
def test_a_last_checkpoint_that_says_nothing(note: bytes, tmp_path: Path, caplog):
    """Then the iterations decide: clocks are set back, and copies have new dates."""
    _save(tmp_path, 10, 11, 12)
    _checkpointer(tmp_path, 11).save("model_best", is_last=False, iteration=11)
    _checkpointer(tmp_path, 13).save("model_final", is_last=False, iteration=13)
    names = ["model_final.pth", "model_0000012.pth", "model_0000011.pth", "model_best.pth", "model_0000010.pth"]
    for age, name in enumerate(names):
        os.utime(tmp_path / name, (age, age))  # the newest has the oldest date
    path = tmp_path / "last_checkpoint"
    if note == b"folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(note)
    for expected in (13, 12, 11):
        assert _resumed(tmp_path) == expected
        assert f"The newest sound one is taken: {names[0]}" in caplog.text
        (tmp_path / names.pop(0)).unlink()


def test_nothing_sound_is_an_error(tmp_path: Path):
    assert not _checkpointer(tmp_path).has_checkpoint()
    _save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.pth"):
        truncate(path)
    with pytest.raises(ValueError, match=r"no sound checkpoint.*model_0000002.*model_0000001"):
        _resumed(tmp_path)


def test_old_checkpoints_go_when_a_newer_one_was_read_back(tmp_path: Path, monkeypatch, caplog):
    _checkpointer(tmp_path).save("model_best")
    _save(tmp_path, 1, 2, 3, keep=2)
    kept = {"model_best.pth", "model_0000002.pth", "model_0000003.pth", "last_checkpoint"}
    assert _names(tmp_path) == kept
    monkeypatch.setattr(checkpoint_module, "what_is_wrong", lambda *_: "a bad block")
    _save(tmp_path, 4, keep=1)
    assert _names(tmp_path) == kept | {"model_0000004.pth"} and "a bad block" in caplog.text
    monkeypatch.undo()
    _save(tmp_path, 5)
    assert len(_names(tmp_path)) == 6
    _checkpointer(tmp_path, keep=1).save("model_final")
    assert _names(tmp_path) == {"model_best.pth", "model_0000005.pth", "model_final.pth", "last_checkpoint"}


def test_an_interruption_leaves_no_half_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as f:
        f.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and _names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("name", ["../a", "/etc/a", "b/../../a", "..", "a\0b"])
def test_names_that_lead_out_of_a_folder(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match="leads out"):
        inside(str(tmp_path), name)
    assert inside(str(tmp_path), "b/c.png") == os.path.join(str(tmp_path), "b", "c.png")
