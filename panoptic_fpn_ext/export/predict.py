"""Predict an image with an exported panoptic model: python predict.py model.onnx photo.jpg overlay.png.

Needs numpy, Pillow and onnxruntime (.onnx), openvino (.xml) or torch and torchvision (.pt2), nothing else.
"""

import argparse
import functools
import json
import os
import sys
import zipfile
from typing import Any

import numpy as np
from PIL import Image, ImageOps

NAMES = ("panoptic_seg", "segment_id", "category_id", "isthing", "score", "area", "box")
THRESHOLDS = {"instance_score_threshold": "f4", "overlap_threshold": "f8", "stuff_area_threshold": "i8"}


def load(path: str, precision: str = "float32") -> tuple[Any, dict[str, Any]]:
    """A function of an image (uint8 (H, W, 3) in the file's channel order), and what the file says of itself."""
    if precision != "float32" and not path.endswith(".xml"):
        sys.exit(f"Only OpenVINO's files (.xml) run in {precision}.")
    if path.endswith(".xml"):
        core = openvino_core()
        model = core.read_model(path)
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            sys.exit("This CPU does not compute in bfloat16.")
        if precision == "bfloat16":
            keep_float32(model.get_ops())
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        compiled = compile_openvino(model, {"INFERENCE_PRECISION_HINT": hint})
        entries = model.get_rt_info(["panoptic_fpn_ext"]).astype(dict)
        description = decode({key: str(getattr(value, "value", value)) for key, value in entries.items()})
        thresholds = {name: np.array(description["thresholds"][name], dtype) for name, dtype in THRESHOLDS.items()}
        return lambda image: (lambda found: [found[n] for n in NAMES])(
            compiled({"image": image, **thresholds})
        ), description
    if path.endswith(".pt2"):
        return load_program(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that thresholds are inputs, which they are to be
    options.enable_mem_pattern = False  # it keeps a plan of memory for each size of image
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    return lambda image: session.run(list(NAMES), {"image": image}), decode(entries)


@functools.cache
def openvino_core() -> Any:
    """One for all files: a second one that ends leaves a thread without its stack for signals."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would send usage statistics
    import openvino

    return openvino.Core()


def compile_openvino(model: Any, options: dict[str, Any]) -> Any:
    """A model on this CPU. OpenVINO keeps what it prepares for arrays of a size, by itself so often that memory grows
    with every image, since each instance has a size of its own.
    """
    core, kept = openvino_core(), "CPU_RUNTIME_CACHE_CAPACITY"
    try:
        return core.compile_model(model, "CPU", {**options, kept: 300})
    except RuntimeError as error:
        if kept not in str(error):
            raise
        return core.compile_model(model, "CPU", options)  # a version without this option


def keep_float32(operations: Any, is_body: bool = False) -> None:
    """Of OpenVINO's operators, those outside of the network's layers, which are named by their path (/backbone/…).

    What stands in a loop (``is_body``) belongs to no layer.
    """
    for one in operations:
        if is_body or "/" not in one.get_friendly_name().strip("/"):
            one.get_rt_info()["precise_0"] = ""  # computed as the file has it, whatever the precision of the rest
        if one.get_type_name() == "Loop":
            keep_float32(one.get_function().get_ops(), True)


def load_program(path: str) -> tuple[Any, dict[str, Any]]:
    """As :func:`load`, for a program of torch.export, which takes resized and padded images."""
    import torch
    import torchvision  # noqa: F401 - its operators are part of the program

    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/description.json"))
        description = json.loads(archive.read(name))
    module: Any = torch.export.load(path).module()
    thresholds = [np.array(description["thresholds"][name], dtype) for name, dtype in THRESHOLDS.items()]
    shortest, longest = description["resize"]

    def run(image: Any) -> list[Any]:
        size = np.array(image.shape[:2], dtype=np.float64)
        scaled = np.where(size == size.min(), shortest, shortest / size.min() * size) if shortest else size
        scaled = scaled * (longest / scaled.max()) if shortest and scaled.max() > longest else scaled
        height, width = np.maximum(scaled + 0.5, 1).astype(int).tolist()
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        divisor = description["divisor"]
        padded = np.pad(resized, ((0, -height % divisor), (0, -width % divisor), (0, 0)))
        arrays = [padded, *thresholds, np.array(image.shape[:2]), np.array([height, width])]
        with torch.no_grad():
            return [one.numpy() for one in module(*map(torch.from_numpy, arrays))[: len(NAMES)]]

    return run, description


def decode(entries: dict[str, str]) -> dict[str, Any]:
    """Each entry is JSON."""
    return {key: json.loads(value) for key, value in entries.items()}


def read_rgb(photo: str) -> Any:
    """uint8 (H, W, 3), upright; of 16-bit grey the 8 highest bits."""
    try:
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's own, and those of what a broken file leads to
        sys.exit(f"{photo} cannot be read as an image: {error}.")
    if upright.mode.startswith("I;16") or (upright.mode == "I" and photo.lower().endswith(".png")):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode in ("I", "F"):
        sys.exit(f"{photo} has mode {upright.mode}, which has no black and white: save it with 8 bits.")
    return np.asarray(upright.convert("RGB"))


def main(model: str, photo: str, overlay: str = "", precision: str = "float32") -> None:
    """Print the segments of a photo and, on request, draw them over it."""
    for path in (model, photo):
        if not os.path.isfile(path):
            sys.exit(f"There is no file {path}.")
    folder = os.path.dirname(overlay)
    if folder and not os.path.isdir(folder):
        sys.exit(f"There is no folder {folder}.")
    formats = {ending: name for ending, name in Image.registered_extensions().items() if name in Image.SAVE}
    if overlay and os.path.splitext(overlay)[1].lower() not in formats:
        sys.exit(f"Nothing says which format {overlay} is to have: name it {overlay}.png.")
    if overlay and os.path.realpath(overlay) in (os.path.realpath(model), os.path.realpath(photo)):
        sys.exit(f"{overlay} would be written over, and is one of the inputs: name another overlay.")
    rgb = read_rgb(photo)
    try:
        predict, description = load(model, precision)
    except Exception as error:  # each runtime has its own
        sys.exit(f"{model} cannot be opened: {type(error).__name__}: {error}")
    if "categories" not in description:
        sys.exit(f"{model} says nothing of categories: python -m panoptic_fpn_ext.export did not write it.")
    image = rgb[:, :, ::-1] if description["input_format"] == "BGR" else rgb
    panoptic_seg, ids, categories, _, scores, areas, boxes = predict(np.ascontiguousarray(image))
    rows = {row["id"]: row for row in description["categories"]}
    colors = np.zeros((len(ids) + 1, 3), dtype=np.uint8)
    for id_, category, score, area, box in zip(ids, categories, scores, areas, boxes, strict=True):
        row = rows[int(category)]
        colors[id_] = row["color"]
        place = f"  score {score:.2f}  box {', '.join(f'{x:.1f}' for x in box)}" if row["isthing"] else ""
        print(f"{id_:4d}  {row['name']}  {area} px{place}")  # noqa: T201
    if overlay:
        try:
            Image.fromarray(rgb // 2 + colors[panoptic_seg] // 2).save(overlay)
        except (OSError, ValueError) as error:
            sys.exit(f"{overlay} cannot be written: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="model.onnx, model.xml or model.pt2")
    parser.add_argument("photo")
    parser.add_argument("overlay", nargs="?", default="", help="where the photo goes with its segments drawn over it")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="of the network's layers; .xml only"
    )
    main(**vars(parser.parse_args()))
