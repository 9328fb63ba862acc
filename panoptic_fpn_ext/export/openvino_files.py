"""OpenVINO's files of a graph: how they are written, opened, and run in another precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import predict
from .combine import Thresholds
from .packages import needed

__all__ = ["PRECISIONS", "open_openvino", "openvino_core", "openvino_entries", "read_openvino", "write_openvino"]

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""What a file's layers can be computed in, and OpenVINO's name of it."""

_KEY = "panoptic_fpn_ext"
_Arrays = dict[str, npt.NDArray[Any]]


def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which lives as long.

    Its part for CPUs gives the thread that begins it a stack for signals, and sets the former one again at its end: of
    two that end in the order in which they began, a freed stack is left, and the next signal kills the process.

    Raises:
        ImportError: openvino is not installed.
    """
    needed("openvino")
    return predict.openvino_core()


def write_openvino(onnx_path: str | Path, path: str | Path) -> None:
    """Write OpenVINO's ``.xml`` and ``.bin`` of an ONNX file of this package, in float32, with its description.

    Raises:
        ImportError: openvino or onnx is not installed.
    """
    openvino, onnx = needed("openvino"), needed("onnx")
    source = onnx.load_model(str(onnx_path))
    # OpenVINO takes inputs with a value for constants.
    kept = [one for one in source.graph.initializer if one.name not in Thresholds._fields]
    del source.graph.initializer[:]
    source.graph.initializer.extend(kept)
    model = openvino_core().read_model(source.SerializeToString())
    for entry in source.metadata_props:
        model.set_rt_info(entry.value, [_KEY, entry.key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def open_openvino(
    path: Path, threads: int, precision: str
) -> tuple[Callable[[_Arrays, list[str]], _Arrays], dict[str, str]]:
    """What runs a file, and its description, JSON by name.

    Args:
        path: ``.xml``.
        threads: at most so many; 0: all cores.
        precision: of :data:`PRECISIONS`; layers in 8-bit integers stay as they are.

    Raises:
        ImportError: openvino is not installed.
        ValueError: the CPU does not compute in that precision, or as :func:`read_openvino`.
    """
    core = openvino_core()
    found = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in found:
        raise ValueError(
            f"This CPU does not compute in bfloat16 (OpenVINO finds {', '.join(found)}); it takes one with avx512_bf16 "
            "or amx_bf16. Leave the precision at float32."
        )
    model = read_openvino(path)
    if precision == "bfloat16":
        predict.keep_float32(model.get_ops())
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}  # the default may be bfloat16
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = predict.compile_openvino(model, options)

    def run(inputs: _Arrays, names: list[str]) -> _Arrays:
        outputs = compiled(inputs)
        return {name: np.array(outputs[name]) for name in names}

    return run, openvino_entries(model)


def read_openvino(path: Path) -> Any:
    """The ``openvino.Model`` of a file.

    Raises:
        ImportError: openvino is not installed.
        ValueError: the file is damaged, or the ``.bin`` of its weights is, or is not there.
    """
    try:
        return openvino_core().read_model(str(path))
    except RuntimeError as error:
        weights, reason = path.with_suffix(".bin").name, str(error).strip().splitlines()[-1]
        raise ValueError(
            f"{path} cannot be opened by OpenVINO; {weights} must lie beside it, whole: {reason}"
        ) from error


def openvino_entries(model: Any) -> dict[str, str]:
    """The description in a model's metadata: JSON by name, nothing in other models."""
    entries = model.get_rt_info([_KEY]).astype(dict) if model.has_rt_info([_KEY]) else {}
    return {key: str(value.value if hasattr(value, "value") else value) for key, value in entries.items()}
