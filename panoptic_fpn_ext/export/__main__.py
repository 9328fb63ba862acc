"""Write a panoptic model as one file: an image of any size in, its panoptic map and segments out.

ONNX and OpenVINO files need no PyTorch; a program of torch.export (pt2) needs PyTorch and torchvision.

Beside the file come ``predict.py``, which runs it, and a README. Then the file is checked: the same images go through
PyTorch and through it. Exit status 1: they disagree.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from PIL import Image
from tabulate import tabulate

from .. import model_zoo
from ..categories import PanopticCategories
from ..command import child_output, command_parser, real, run_command, whole
from ..console import start_console
from ..engine import PanopticPredictor, Trainer
from ..engine.checks import check_registered
from ..engine.data_descriptions import add_register_argument
from ..engine.images import find_images
from ..engine.settings.model_outputs import model_outputs
from ..engine.setup import load_config, load_prediction_config
from ..image_files import read_image
from . import predict
from .description import Description, dataset_ids, describe
from .graph import PanopticGraph
from .int8 import choose_int8
from .openvino_files import write_openvino
from .predictor import ExportedPredictor
from .program_files import write_program
from .runtimes import FORMATS, write_onnx
from .self_check import Agreement, check_agreement, check_images

_README = """# A panoptic model

{files}

    pip install numpy pillow {runtimes}
    python predict.py {first} photo.jpg overlay.png

Input `image`: uint8 (height, width, 3) of any size, channels {input_format}. Outputs: `panoptic_seg` int32 (height,
width), the segment of each pixel, 0 is void; and of each segment `segment_id`, `category_id` (of the dataset),
`isthing`, `score` (1 for stuff), `area` (pixels), `box` (x0, y0, x1, y1 of things, 0 for stuff). The file's metadata
hold categories with names and colours, thresholds, versions and the config, each as JSON. `predict.py` shows how to
run each format; thresholds are inputs too, and a `.pt2` takes the image resized and padded.

Written by panoptic_fpn_ext {version} from {weights}.
"""


_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch torchvision"}

# Runs a script and prints the most memory it had, in kB; `getrusage` would count that of the parent process too.
_MEASURED = """
import os, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
status = open("/proc/self/status").read() if os.path.exists("/proc/self/status") else ""
print(status.partition("VmHWM:")[2].split()[0] if status else 0)
"""


_FIGURES = {
    **{name: ("panoptic_seg", name) for name in ("PQ", "SQ", "RQ")},
    "box AP": ("bbox", "AP"),
    "mask AP": ("segm", "AP"),
    "mIoU": ("sem_seg", "mIoU"),
}


def get_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    name = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
    parser = command_parser(
        __doc__, f"python -m panoptic_fpn_ext.export {name} zoo exported", prog="python -m panoptic_fpn_ext.export"
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML config: a file, or a name of the model zoo")
    parser.add_argument("weights", metavar="WEIGHTS", help="a checkpoint, or zoo for the published one of that name")
    parser.add_argument("output", metavar="FOLDER", help="where the files go")
    parser.add_argument("--format", default="onnx", metavar="F,F", help=f"of {', '.join(FORMATS)} (default: onnx)")
    parser.add_argument(
        "--outputs",
        default="panoptic_seg",
        metavar="O,O",
        help="panoptic_seg and, for evaluators of AP and mIoU, instances and sem_seg (default: panoptic_seg)",
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="PATH", help="check with these too")
    parser.add_argument(
        "--int8",
        metavar="DATASET",
        help="with the format openvino: also a file in 8-bit integers, calibrated on images of this dataset, and its "
        "PQ, AP and mIoU on DATASETS.TEST beside those of float32; needs nncf",
    )
    parser.add_argument("--calibration-images", type=whole(1), default=100, metavar="N", help="of the dataset (100)")
    parser.add_argument(
        "--max-pq-drop",
        type=real(),
        default=0.5,
        metavar="P",
        help="points of PQ that int8 may cost on these images; layers that cost more stay float32 (0.5)",
    )
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = get_parser().parse_args(arguments)
    start_console()
    formats = args.format.split(",")
    if "aoti" in formats:
        raise ValueError(
            "There is no format for AOTInductor: its compiler takes minutes for such a program, and "
            "whether what it makes would run without detectron2 is not known. onnx and openvino need no PyTorch."
        )
    if not set(formats) <= set(FORMATS):
        raise ValueError(f"--format takes {', '.join(FORMATS)}, separated by commas; got {args.format}.")
    if args.int8 and "openvino" not in formats:
        raise ValueError(f"--int8 quantises the format openvino; got --format {args.format}.")
    folder = Path(args.output)
    _keep_foreign_files(folder)
    photos = [read_image(path, "BGR") for path in find_images(args.images)] if args.images else []
    cfg = _config(args)
    if args.int8:
        check_registered([args.int8], "--int8")
    predictor = PanopticPredictor(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    files = _write(predictor, cfg, folder, formats)
    former = sorted({path.name for path in folder.glob("model*.*") if path.suffix in FORMATS.values()})
    former = [name for name in former if folder / name not in files.values()]
    if former:
        _show(f"{folder} has {', '.join(former)} of a former export too, which are not checked: of the same model?")
    if not _check(predictor, files, folder, photos):
        return 1
    if args.int8:
        _quantise(args, cfg, files["openvino"])
    return 0


def _keep_foreign_files(folder: Path) -> None:
    """An export replaces an export; files of these names that are somebody's own stay."""
    found = [name for name in ("README.md", "predict.py") if (folder / name).exists()]
    if found and not any((folder / f"model{ending}").exists() for ending in FORMATS.values()):
        raise ValueError(f"{folder} has a file {found[0]} that no export wrote: name a folder for the export alone.")


def _config(args: argparse.Namespace) -> CfgNode:
    path = args.config if os.path.isfile(args.config) else model_zoo.get_config_file(args.config)
    weights = model_zoo.get_checkpoint(args.config) if args.weights == "zoo" else args.weights
    outputs = str(tuple(args.outputs.split(",")))
    only = ["MODEL.PANOPTIC_FPN.OUTPUTS", outputs, "MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"]
    only += ["TEST.AUG.ENABLED", "False"]  # one view is what a file computes
    load = load_config if args.int8 else load_prediction_config  # the first registers and checks the datasets too
    return load(path, [*args.opts, *only], args.register)


def _write(predictor: PanopticPredictor, cfg: CfgNode, folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """The files by format, with what belongs to them."""
    categories = PanopticCategories.from_metadata(predictor.metadata)
    resize = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    outputs = model_outputs(cfg)
    graph = PanopticGraph(predictor.model, dataset_ids(categories), resize, outputs=outputs).eval()
    description = describe(graph, categories, cfg.INPUT.FORMAT, cfg.dump())
    files = {name: folder / f"model{FORMATS[name]}" for name in formats}
    _show("Writing the graph ...")
    if set(files) & {"onnx", "openvino"}:
        _write_from_onnx(graph, files, folder, description)
    if "pt2" in files:
        ids = dataset_ids(categories)
        program = PanopticGraph(predictor.model, ids, resize, resizes=False, outputs=outputs).eval()
        write_program(program, files["pt2"], describe(program, categories, cfg.INPUT.FORMAT, cfg.dump()))
    shutil.copyfile(predict.__file__, folder / "predict.py")
    runtimes = " ".join(_RUNTIMES[name] for name in formats)
    text = _README.format(
        files="\n".join(f"- `{path.name}`: {name}" for name, path in files.items()),
        runtimes=runtimes,
        first=next(iter(files.values())).name,
        input_format=cfg.INPUT.FORMAT,
        version=description["versions"]["panoptic_fpn_ext"],
        weights=os.path.basename(cfg.MODEL.WEIGHTS),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return files


def _write_from_onnx(graph: PanopticGraph, files: dict[str, Path], folder: Path, description: Description) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        onnx_path = Path(scratch) / "model.onnx"
        write_onnx(graph, onnx_path, description)
        if "openvino" in files:
            write_openvino(onnx_path, files["openvino"])
        if "onnx" in files:
            onnx_path.replace(files["onnx"])


def _check(predictor: PanopticPredictor, files: dict[str, Path], folder: Path, photos: list[Any]) -> bool:
    """Whether all files agree with PyTorch; prints how far."""
    images = check_images(photos)
    _show(f"Checking with {len(images)} images ...")
    predictors = {name: ExportedPredictor(path) for name, path in files.items()}
    agreements, seconds = check_agreement(images, predictor, predictors)
    rows = [["PyTorch", "", "", f"{seconds:.2f} s", ""]]
    for name, one in agreements.items():
        peak = _peak_memory(folder, files[name], max(images, key=lambda image: image.size))
        rows.append([name, *_cells(one), f"{one.median_seconds:.2f} s", f"{peak:.0f} MB" if peak else "unknown"])
    heads = ["", "equal pixels", "same segments", "median time", "peak memory of predict.py"]
    _show(tabulate(rows, heads))
    good = all(one.is_good for one in agreements.values())
    _show(f"{folder}: {'all files agree with PyTorch.' if good else 'a file does not agree with PyTorch.'}")
    return good


def _quantise(args: argparse.Namespace, cfg: CfgNode, source: Path) -> None:
    """Write the int8 file beside another and show the figures of both."""
    path = source.with_name("model_int8.xml")
    _show(f"Quantising with {args.calibration_images} images of {args.int8} ...")
    choice = choose_int8(
        source, path, args.int8, num_images=args.calibration_images, max_drop=args.max_pq_drop, say=_show
    )
    if choice.float_groups:
        groups = [[name, f"{pq - choice.all_int8_pq:+.2f}"] for name, pq in choice.pq_without.items()]
        _show(tabulate(groups, ["in float32", "PQ gained over all in int8"], stralign="left"))
        _show(f"In float32 stay: {', '.join(choice.float_groups)}")
    rows = [[name, *_figures(cfg, file)] for name, file in (("float32", source), ("int8", path))]
    _show(f"On {', '.join(cfg.DATASETS.TEST)}:")
    _show(tabulate(rows, ["", *_FIGURES], floatfmt=".2f", missingval=""))
    _show(f"{path}: the file in int8.")


def _figures(cfg: CfgNode, path: Path) -> list[float | None]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(path)
    logging.disable(logging.INFO)  # the tables of every evaluation
    try:
        with tempfile.TemporaryDirectory() as scratch:
            results = Trainer.evaluate_checkpoint(cfg, scratch)
    finally:
        logging.disable(logging.NOTSET)
    return [results.get(task, {}).get(key) for task, key in _FIGURES.values()]


def _cells(one: Agreement) -> list[str]:
    return [f"{one.equal / one.pixels:.4%}", f"{one.same_segments} of {one.images}"]


def _peak_memory(folder: Path, model: Path, image: Any) -> float:
    """Megabytes of a process that runs ``predict.py``, PyTorch not included; 0 where the system does not say."""
    with tempfile.TemporaryDirectory() as scratch:
        photo = os.path.join(scratch, "photo.png")
        Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(photo)
        command = [sys.executable, "-c", _MEASURED, str(folder / "predict.py"), str(model), photo]
        return int(child_output(command).split()[-1]) / 1024


def _show(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    run_command(main)
