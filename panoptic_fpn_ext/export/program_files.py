"""Graphs as programs of `torch.export`: files that PyTorch and torchvision run without this package or detectron2."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision  # noqa: F401 - its operators are part of the programs

from .combine import Thresholds
from .description import Description
from .graph import PanopticGraph

__all__ = ["open_program", "read_program_description", "write_program"]

INPUT_NAMES = ("image", *Thresholds._fields, "output_size", "input_size")
_DESCRIPTION = "description.json"
# Of an example; every other image has other sizes.
_PADDED, _INPUT, _OUTPUT = (96, 128), (80, 110), (90, 120)


def write_program(graph: PanopticGraph, path: str | Path, description: Description) -> None:
    """Write a graph as a program of `torch.export`, with a description in the file.

    Its inputs are, in this order, ``image`` (resized, and padded below and on the right to multiples of the
    description's ``divisor``, of at least ``least_side``), the thresholds, ``output_size`` and ``input_size``, as
    :meth:`~panoptic_fpn_ext.export.graph.PanopticGraph.forward` has them.

    Raises:
        ValueError: the graph resizes; `torch.export` does not know the size of what a computed size makes.
    """
    if graph.resizes:
        raise ValueError("torch.export cannot express the resizing: give PanopticGraph resizes=False.")
    side = torch.export.Dim.DYNAMIC
    divisor = description["divisor"]
    # torch.export takes a map of one row or column for one that is never longer, so all have two.
    least_side = int(graph.model.proposal_generator.anchor_generator.strides[-1]) + 1
    description = {**description, "least_side": least_side}
    height, width = (-(-max(n, least_side) // divisor) * divisor for n in _PADDED)
    image = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    inputs = (image, *graph.settings.thresholds, torch.tensor(_OUTPUT), torch.tensor(_INPUT))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            graph,
            inputs,
            dynamic_shapes=({0: side, 1: side}, *[None] * (len(inputs) - 1)),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        torch.export.save(program, str(path), extra_files={_DESCRIPTION: json.dumps(description)})


def open_program(path: Path) -> Callable[[dict[str, npt.NDArray[Any]], list[str]], dict[str, npt.NDArray[Any]]]:
    """What runs a file of :func:`write_program`: an image is padded here."""
    description = read_program_description(path)
    divisor, least_side = description["divisor"], description["least_side"]
    module: Any = torch.export.load(str(path)).module()

    def run(inputs: dict[str, npt.NDArray[Any]], names: list[str]) -> dict[str, npt.NDArray[Any]]:
        height, width = inputs["image"].shape[:2]
        image = np.pad(inputs["image"], ((0, -height % divisor), (0, -width % divisor), (0, 0)))
        if min(image.shape[:2]) < least_side:
            raise ValueError(
                f"A program of torch.export takes network inputs of more than {least_side - 1} px a side, this one is "
                f"{height}×{width}: export the model as ONNX for images as narrow as that."
            )
        arrays = {**inputs, "image": image, "input_size": np.array([height, width])}
        with torch.no_grad():
            found = module(*(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES))
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    return run


def read_program_description(path: Path) -> Description:
    """What a file of :func:`write_program` says of itself, nothing of other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith(f"/{_DESCRIPTION}")]
            return dict(json.loads(archive.read(found[0]))) if found else {}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no program of torch.export ({error}).") from error
