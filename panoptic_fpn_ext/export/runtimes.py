"""The formats a graph is written in, and what runs them. ONNX and ONNX Runtime are imported here only."""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from .combine import Thresholds
from .description import Description
from .graph import RAW_NAMES, SEGMENT_NAMES, PanopticGraph
from .openvino_files import PRECISIONS, open_openvino, openvino_entries, read_openvino
from .packages import needed
from .program_files import open_program, read_program_description

__all__ = [
    "FORMATS",
    "Outputs",
    "Session",
    "open_session",
    "read_description",
    "threshold_inputs",
    "write_onnx",
]

OPSET = 20
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
"""What can be written, and the ending of its file."""

Outputs = dict[str, npt.NDArray[Any]]
Session = Callable[[dict[str, npt.NDArray[Any]]], Outputs]
"""Runs a file: inputs by name to its outputs by name. Thresholds may be left out."""

# Of an example that is traced; every other image has other sizes.
_EXAMPLE = (96, 128)


def write_onnx(graph: PanopticGraph, path: str | Path, description: Description) -> None:
    """Write a graph as ONNX, with a description in its metadata.

    The file's inputs are those of :meth:`~panoptic_fpn_ext.export.graph.PanopticGraph.forward`: ``image``, and
    thresholds, which are optional; where the graph does not resize, also ``output_size``.

    Raises:
        ImportError: onnx is not installed.
    """
    onnx = needed("onnx")
    image = torch.randint(0, 256, (*_EXAMPLE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    inputs = (image, *graph.settings.thresholds, *(() if graph.resizes else (torch.tensor(_EXAMPLE),)))
    buffer: Any = io.BytesIO()  # which the hints do not name
    torch.onnx.register_custom_op_symbolic("torchvision::roi_align", _roi_align, OPSET)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's about detectron2's assertions, and that it will go one day
        torch.onnx.export(
            graph,
            inputs,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image", *Thresholds._fields, "output_size"][: len(inputs)],
            output_names=list(graph.output_names),
            dynamic_axes=_dynamic_axes(graph),
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    for name, default in graph.settings.thresholds._asdict().items():  # an input with a value need not be given
        model.graph.initializer.append(onnx.numpy_helper.from_array(default.numpy(), name))
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))


@torch.onnx.symbolic_helper.parse_args("v", "v", "f", "i", "i", "i", "i")
def _roi_align(
    g: Any, features: Any, rois: Any, scale: float, height: int, width: int, sampling_ratio: int, aligned: int
) -> Any:
    """As torchvision has it, without its branch on the shape of the image indices, which costs quantisation minutes."""
    index = g.op("Gather", rois, g.op("Constant", value_t=torch.tensor(0)), axis_i=1)
    return g.op(
        "RoiAlign",
        features,
        g.op("Gather", rois, g.op("Constant", value_t=torch.tensor([1, 2, 3, 4])), axis_i=1),
        g.op("Cast", index, to_i=torch.onnx.TensorProtoDataType.INT64),
        coordinate_transformation_mode_s="half_pixel" if aligned else "output_half_pixel",
        spatial_scale_f=scale,
        output_height_i=height,
        output_width_i=width,
        sampling_ratio_i=max(sampling_ratio, 0),
    )


def _dynamic_axes(graph: PanopticGraph) -> dict[str, dict[int, str]]:
    size = {0: "height", 1: "width"}
    axes = {"image": size, "panoptic_seg": size if graph.resizes else {0: "output_height", 1: "output_width"}}
    axes |= {name: {0: "segments"} for name in SEGMENT_NAMES[1:]}
    if "instances" in graph.outputs:
        axes |= {name: {0: "instances"} for name in RAW_NAMES["instances"]}
    if "sem_seg" in graph.outputs:
        axes["sem_seg_logits"] = {1: "logit_rows", 2: "logit_columns"}
    return axes


def threshold_inputs(thresholds: Mapping[str, float]) -> dict[str, npt.NDArray[Any]]:
    """Inputs of a file by the names of :class:`~panoptic_fpn_ext.export.combine.Thresholds`."""
    return {name: value.numpy() for name, value in Thresholds.of_numbers(**thresholds)._asdict().items()}


def output_names(description: Description) -> list[str]:
    """Of the outputs of a file."""
    raw = [name for output, names in RAW_NAMES.items() if output in description["outputs"] for name in names]
    return [*SEGMENT_NAMES, *raw]


def open_session(path: str | Path, threads: int = 0, precision: str = "float32") -> tuple[Session, Description]:
    """A file, ready to run on the CPU, and its description.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt2``.
        threads: at most so many; 0: all cores. A ``.pt2`` runs with as many as PyTorch is set to.
        precision: of a network's layers, "float32" or, of an ``.xml``, "bfloat16"; what comes before and after them is
            computed in float32.

    Raises:
        FileNotFoundError: no such file.
        ImportError: what runs it is not installed.
        ValueError: another ending, a file that this package did not write, or a precision that the file's runtime or
            the CPU does not have.
    """
    path = _known_path(path)
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision != "float32" and path.suffix != ".xml":
        raise ValueError(f"Only OpenVINO's files (.xml) run in {precision} on a CPU; {path} runs in float32.")
    run: _Run
    if path.suffix == ".pt2":
        description = read_description(path)
        run = open_program(path)
    elif path.suffix == ".onnx":
        run, entries = _open_onnx(path, threads)
        description = _decoded(entries, path)
    else:
        run, entries = open_openvino(path, threads, precision)
        description = _decoded(entries, path)
    names, defaults = output_names(description), threshold_inputs(description["thresholds"])
    return lambda inputs: run({**defaults, **inputs}, names), description


def read_description(path: str | Path) -> Description:
    """What a file says of itself, in less time than it takes to open it; errors as :func:`open_session`."""
    path = _known_path(path)
    if path.suffix == ".onnx":
        return _decoded(_onnx_entries(_onnx_session(path, 1, is_optimized=False)), path)
    if path.suffix == ".pt2":
        return _known_description(read_program_description(path), path)
    return _decoded(openvino_entries(read_openvino(path)), path)


def _known_path(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no exported model {path}.")
    if path.suffix not in FORMATS.values():
        raise ValueError(f"{path} is no exported model: its name must end in {' or '.join(FORMATS.values())}.")
    return path


def _decoded(entries: Mapping[str, str], path: Path) -> Description:
    return _known_description({key: json.loads(value) for key, value in entries.items()}, path)


def _known_description(description: Description, path: Path) -> Description:
    if "sem_seg_space" not in description:
        raise ValueError(f"{path} says nothing of its classes: write it with python -m panoptic_fpn_ext.export.")
    return description


_Run = Callable[[dict[str, npt.NDArray[Any]], list[str]], Outputs]


def _open_onnx(path: Path, threads: int) -> tuple[_Run, dict[str, str]]:
    session = _onnx_session(path, threads)

    def run(inputs: dict[str, npt.NDArray[Any]], names: list[str]) -> Outputs:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run, _onnx_entries(session)


def _onnx_session(path: Path, threads: int, is_optimized: bool = True) -> Any:
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it keeps a plan of memory for each size of image
    if not is_optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a type of its own for each kind
        raise ValueError(f"{path} cannot be opened by ONNX Runtime {runtime.__version__}: {error}") from error


def _onnx_entries(session: Any) -> dict[str, str]:
    return dict(session.get_modelmeta().custom_metadata_map)
