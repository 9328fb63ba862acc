#!/usr/bin/env python
"""A whole pipeline on a CPU, photo in, panoptic map out: detectron2's `PanopticFPN`, ours and exported files.

    OMP_NUM_THREADS=2 python projects/benchmark/exported.py

R50, a photo of 480×640 px, 800×1067 px inside, 100 detections, 20 of them above the score threshold; random weights as
those of network.py. Ours and OpenVINO also run in bfloat16 where the CPU has it, and OpenVINO in 8-bit integers where
nncf is installed, calibrated on the photo. All sides alternate in one process; each peak of memory is of a process of
its own that predicts the photo once. See README.md.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from alternation import Sides, alternate, print_rows
from environment import write_report
from network import INPUT_SIZE, OUTPUT_SIZE, build, build_sides, count_different, read_inputs
from PIL import Image
from torch.nn import functional as F

from panoptic_fpn_ext import optimize_for_inference
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.command import child_output, command_parser, run_command, whole
from panoptic_fpn_ext.data.nonempty import NonemptyResizeShortestEdge
from panoptic_fpn_ext.data.planes import to_planes
from panoptic_fpn_ext.export import ExportedPredictor, PanopticGraph, describe, predict, write_onnx, write_openvino
from panoptic_fpn_ext.export.description import dataset_ids
from panoptic_fpn_ext.export.int8 import write_int8
from panoptic_fpn_ext.image_files import read_image

Array = npt.NDArray[Any]
RESIZE = (800, 1333)
# By side: the file, and the precision of its layers.
FILES = {
    "onnxruntime": ("model.onnx", "float32"),
    "openvino": ("model.xml", "float32"),
    "openvino, bfloat16": ("model.xml", "bfloat16"),
    "openvino, int8": ("model_int8.xml", "float32"),
}
OURS = {"ours": "float32", "ours, bfloat16": "bfloat16"}


@torch.no_grad()
def main() -> None:
    """Measure, print the table and write it as JSON."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.child:
        return print_peak(args)
    args.folder.mkdir(parents=True, exist_ok=True)
    photo = args.folder / "photo.png"
    image = write_photo(args.image, photo)
    if not (args.reuse and (args.folder / "model.xml").is_file()):
        write_models(args.folder, args.image)
    predictors = open_sides(args)
    outputs: dict[str, Any] = {}

    def side(name: str) -> Any:
        return lambda _: outputs.update({name: predictors[name](image)})

    sides: Sides = {name: side(name) for name in predictors}
    rows = alternate(sides, args.rounds, "cpu")
    for row in rows:
        row["faster"] = rows[0]["wall_s"] / row["wall_s"]
        row["different_pixels"] = count_different(outputs[row["side"]], outputs["detectron2"])
    predictors.clear()  # the processes below need memory too
    for row in rows:
        row["peak_mb"] = peak_memory(args, row["side"], photo)
    print_rows(rows)
    packages = ("onnxruntime", "openvino")
    write_report(args.folder / "exported.json", {"rows": rows, "rounds": args.rounds}, more_packages=packages)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = command_parser(__doc__, "OMP_NUM_THREADS=2 python projects/benchmark/exported.py")
    parser.add_argument("--image", type=Path, help="an image; without one, smooth colours and noise")
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(0), default=0, help="0 is PyTorch's own choice, for all sides")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("output/benchmark/exported"),
        help="of files and figures; default: %(default)s",
    )
    parser.add_argument("--reuse", action="store_true", help="the files that an earlier run left in the folder")
    parser.add_argument("--child", choices=("detectron2", *OURS), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_photo(source: Path | None, path: Path) -> Array:
    """The photo at output size as BGR, also as a file."""
    small = F.interpolate(read_inputs(source)[0]["image"][None].float(), size=OUTPUT_SIZE, mode="bilinear")[0]
    image = small.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(path)
    return image


def write_models(folder: Path, source: Path | None) -> None:
    """Random weights and the files of a model that has them."""
    theirs = build_sides(read_inputs(source))["detectron2"]
    torch.save(theirs.state_dict(), folder / "weights.pth")
    (folder / "threshold.json").write_text(json.dumps(theirs.combine_instances_score_thresh), encoding="utf-8")
    rows = [{"id": i + 1, "name": str(i), "isthing": int(i < 80)} for i in range(80 + 53)]
    categories = PanopticCategories(rows)
    graph = PanopticGraph(theirs, dataset_ids(categories), RESIZE).eval()
    write_onnx(graph, folder / "model.onnx", describe(graph, categories, "BGR"))
    write_openvino(folder / "model.onnx", folder / "model.xml")
    if importlib.util.find_spec("nncf"):
        photo = read_image(folder / "photo.png", "BGR")
        write_int8(folder / "model.xml", folder / "model_int8.xml", [photo], 1)


def open_sides(args: argparse.Namespace) -> dict[str, Any]:
    """What predicts the photo, by name; sides that this machine lacks are left out, and that is said."""
    predictors = {"detectron2": as_predictor(open_model(args.folder, "detectron2"))}
    for name in (*OURS, *FILES):
        try:
            if name in OURS:
                predictors[name] = as_predictor(open_model(args.folder, name))
            else:
                file, precision = FILES[name]
                threads = torch.get_num_threads()
                predictors[name] = ExportedPredictor(args.folder / file, threads=threads, precision=precision)
        except (ValueError, FileNotFoundError) as error:
            print(f"{name} is left out: {error}")
    return predictors


def open_model(folder: Path, side: str) -> Any:
    """One of the models in PyTorch, with the weights of the files."""
    model = build("PanopticFPN" if side == "detectron2" else "PanopticFPNExt")
    model.load_state_dict(torch.load(folder / "weights.pth", weights_only=True))
    threshold = json.loads((folder / "threshold.json").read_text(encoding="utf-8"))
    if side == "detectron2":
        model.combine_instances_score_thresh = threshold
        return model
    model.combiner.instance_score_threshold = threshold
    model.outputs = frozenset(["panoptic_seg"])
    return optimize_for_inference(model, precision=OURS[side])


def as_predictor(model: Any) -> Any:
    """What resizes a photo as all sides do, and predicts it."""
    resize = NonemptyResizeShortestEdge([RESIZE[0]] * 2, RESIZE[1])

    def run(image: Array) -> Any:
        tensor = to_planes(resize.get_transform(image).apply_image(image))
        assert tuple(tensor.shape[1:]) == INPUT_SIZE
        with torch.no_grad():
            return model([{"image": tensor, "height": image.shape[0], "width": image.shape[1]}])[0]

    return run


def peak_memory(args: argparse.Namespace, side: str, photo: Path) -> float:
    """Megabytes of a process that predicts the photo once; exported files with their own script."""
    own = ["--child", side, "--folder", args.folder]
    if side in FILES:
        file, precision = FILES[side]
        own = [args.folder / file, photo, "--precision", precision]
    script = Path(predict.__file__ if side in FILES else __file__)
    program = "import sys, runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
    program += "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    program += "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    command = [sys.executable, "-c", program, str(script), *map(str, own)]
    environment_ = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return int(child_output(command, environment_).split()[-1]) / 1024


def print_peak(args: argparse.Namespace) -> None:
    """Predict the photo with one of the models, in a process of its own."""
    as_predictor(open_model(args.folder, args.child))(read_image(args.folder / "photo.png", "BGR"))


if __name__ == "__main__":
    run_command(main)
