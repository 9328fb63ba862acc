"""Files of weights are read without running what they hold, and need no more memory than they have bytes."""

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from panoptic_fpn_ext.engine import PanopticCheckpointer
from panoptic_fpn_ext.engine.checkpoints.weight_files import TRUSTED, RefusedWeightsError, read_weight_file


class _Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self._path,))


class _ByEval(_Payload):
    def __reduce__(self) -> Any:
        return (eval, (f"__import__('os').mkdir({self._path!r})",))


class _ArraySubclass(_Payload):
    """A call hidden in the state of an allowed object."""

    def __reduce__(self) -> Any:
        return (np.ndarray, ((1,), "O"), (1, (1,), np.dtype("O"), False, [_Payload(Path(self._path))]))


def _nestings(payload: Any) -> dict[str, Any]:
    zoo = {"model": {"a": np.zeros(2, np.float32)}, "__author__": "Detectron2"}
    return {
        "alone": payload,
        "zoo": {**zoo, "more": payload},
        "weights": {**zoo, "model": {"a": payload}},
        "blobs": {"blobs": {"a": [payload]}},
        "array": {**zoo, "model": {"a": np.array([payload], dtype=object)}},
    }


@pytest.mark.parametrize("payload", [_Payload, _ByEval, _ArraySubclass])
@pytest.mark.parametrize("nesting", list(_nestings(None)))
@pytest.mark.parametrize("kind", ["pkl", "pkl2", "pth", "old.pth", "pyth", "raw.pth"])
def test_nothing_is_run(payload: type, nesting: str, kind: str, tmp_path: Path):
    path, made = tmp_path / f"file.{kind.replace('pkl2', 'pkl')}", tmp_path / "made"
    content = _nestings(payload(made))[nesting]
    if kind in ("pkl", "pkl2", "raw.pth"):
        path.write_bytes(pickle.dumps(content, protocol=2 if kind == "pkl2" else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old.pth")
    with pytest.raises(ValueError, match=r"file\..*MODEL\.WEIGHTS") as caught:
        PanopticCheckpointer(nn.Linear(1, 1)).load(str(path))
    assert not made.exists() and "\n" not in str(caught.value)


def test_a_trusted_pickle_is_read_after_a_warning(tmp_path: Path, monkeypatch, caplog):
    path, made = tmp_path / "file.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(1)}, "__author__": "x", "run": _Payload(made)}))
    monkeypatch.setenv(TRUSTED, f"elsewhere{os.pathsep}{path}")
    assert PanopticCheckpointer(nn.Module()).read(str(path))["model"]["a"] == 0
    assert made.exists() and "whatever your account may" in caplog.text


@pytest.mark.parametrize("protocol", range(6))
def test_weights_of_the_zoo_are_read(protocol: int, tmp_path: Path):
    weights = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.float64(0.5),
        "t": np.asfortranarray(np.eye(3)),
    }
    content = {"model": weights, "__author__": "Caffe2", "list": [1, "é", b"\xff", None, True, 2.5, (3,)]}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_weight_file(str(path))
    assert all(np.array_equal(found["model"][k], v) and found["model"][k].dtype == v.dtype for k, v in weights.items())
    assert found["list"] == content["list"] and found["__author__"] == "Caffe2"


def test_what_torch_saves_is_read(tmp_path: Path):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2, 3))])
    content = {
        "model": {"a": torch.ones(4).expand(3, 4), "b": torch.arange(4)[1:]},
        "o": optimizer.state_dict(),
        "i": 3,
    }
    for new in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        assert torch.equal(read_weight_file(str(tmp_path / "a.pth"))["model"]["a"], torch.ones(3, 4))


class _Huge:
    def __reduce__(self) -> Any:
        storage = torch.zeros(4).storage()
        return (torch._utils._rebuild_tensor_v2, (storage, 0, (10**11,), (1,), False, {}))


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_tensors_that_are_not_there_are_refused(tmp_path: Path):
    for new in (True, False):
        torch.save({"model": {"a": _Huge()}}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        with pytest.raises((RefusedWeightsError, RuntimeError)) as caught:
            read_weight_file(str(tmp_path / "a.pth"))
        assert "declares tensors" in str(caught.value) or not new
    array = np.zeros(1, np.uint8)
    data = pickle.dumps({"model": {"a": array}}, protocol=2).replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85")
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(Exception, match=r"."):
        read_weight_file(str(tmp_path / "a.pkl"))


def test_a_compressed_archive_is_refused(tmp_path: Path):
    plain, bomb = io.BytesIO(), tmp_path / "bomb.pth"
    torch.save({"model": {"a": torch.zeros(1_000_000)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    with pytest.raises(RefusedWeightsError, match="unpacks to"):
        read_weight_file(str(bomb))


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_hash_in_a_name_is_checked(algorithm: str, tmp_path: Path):
    data = pickle.dumps({"a": np.zeros(1)})
    digest = hashlib.new(algorithm, data).hexdigest()
    good, bad = tmp_path / f"model_final_{digest[:6]}.pkl", tmp_path / "model_final_00000a.pkl"
    for path in (good, bad, tmp_path / "model_0005999.pkl"):
        path.write_bytes(data)
    read_weight_file(str(good))
    read_weight_file(str(tmp_path / "model_0005999.pkl"))
    with pytest.raises(RefusedWeightsError, match="00000a"):
        read_weight_file(str(bad))


def test_a_date_in_a_name_is_no_hash(tmp_path: Path, caplog):
    torch.save({"a": torch.zeros(1)}, tmp_path / "street-20240115.pth")
    assert set(read_weight_file(str(tmp_path / "street-20240115.pth"))) == {"a"}
    assert "20240115 in its name is not the beginning" in caplog.text
