#!/usr/bin/env python
"""Predict images with a trained model: overlays to look at and, on request, results in COCO panoptic format."""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.command import command_parser, real, run_command, whole
from panoptic_fpn_ext.console import start_console
from panoptic_fpn_ext.data.image_predictor import ImagePredictor, StreamedImage
from panoptic_fpn_ext.engine import PanopticPredictor, PanopticResultWriter
from panoptic_fpn_ext.engine.checkpoints.exported import open_exported
from panoptic_fpn_ext.engine.checkpoints.model_files import is_exported
from panoptic_fpn_ext.engine.data_descriptions import add_register_argument
from panoptic_fpn_ext.engine.images import find_images
from panoptic_fpn_ext.engine.lazy_config import load_lazy_prediction_config
from panoptic_fpn_ext.engine.settings.config_keys import in_pairs, is_lazy_config
from panoptic_fpn_ext.engine.settings.model_outputs import model_outputs
from panoptic_fpn_ext.engine.settings.yacs_view import yacs_view
from panoptic_fpn_ext.engine.setup import add_verbose_argument, load_prediction_config
from panoptic_fpn_ext.report import write_report
from panoptic_fpn_ext.unique_names import UniqueNames
from panoptic_fpn_ext.visualization import VideoReader, VideoWriter, draw_panoptic, save_image

_KEPT_SCORE = "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"


def get_parser() -> argparse.ArgumentParser:
    """Arguments as detectron2's demo has them."""
    parser = command_parser(
        __doc__,
        "python projects/panoptic_fpn/demo.py --config-file output/street/model_final.pth --input photos/ \\\n"
        "    --output overlays",
    )
    parser.add_argument(
        "--config-file",
        metavar="MODEL",
        help="config, name in the model zoo, checkpoint, folder of a run or exported file (default: the config beside "
        "MODEL.WEIGHTS); a LazyConfig, whose --opts are key=value, by its own name",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="PATH", help="files, folders or quoted patterns")
    source.add_argument(
        "--video-input", metavar="FILE|CAMERA", help="a video, or a camera by its number; Ctrl-C ends a camera"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="where the overlays go, NAME.png each, or NAME.mp4 of a video"
    )
    parser.add_argument(
        "--save-results",
        action="store_true",
        help="also write predictions.json and predictions/NAME.png (COCO panoptic)",
    )
    parser.add_argument(
        "--html", action="store_true", help="also write report.html, a page of all images, and what --save-results does"
    )
    parser.add_argument(
        "--confidence-threshold",
        type=real(0, 1),
        metavar="T",
        help="least score of instances (default: the config's)",
    )
    parser.add_argument(
        "--batch-size", type=whole(1), default=1, metavar="N", help="images of one size to predict at once (default: 1)"
    )
    add_register_argument(parser)
    add_verbose_argument(parser)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config options, e.g. MODEL.WEIGHTS FILE",
    )
    return parser


def _opts(args: argparse.Namespace, *keys: str) -> list[Any]:
    """Those of the command line, and ``--confidence-threshold`` as the value of some keys."""
    in_pairs(args.opts)  # refuses what the user typed before more is added
    score = args.confidence_threshold
    return [*args.opts, *(word for key in keys if score is not None for word in (key, score))]


def load_cfg(args: argparse.Namespace) -> CfgNode:
    """Config of the command line; its datasets need not be known where the checkpoint records its categories."""
    opts = _opts(args, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", _KEPT_SCORE)
    opts += ["MODEL.PANOPTIC_FPN.OUTPUTS", "('panoptic_seg',)"]  # the others cost memory and time
    weights = dict(zip(args.opts[::2], args.opts[1::2], strict=False)).get("MODEL.WEIGHTS")
    config_file = args.config_file or weights
    if not config_file:
        raise ValueError("Which model? Name one with --config-file, or its checkpoint with --opts MODEL.WEIGHTS FILE.")
    cfg = load_prediction_config(config_file, opts, args.register)
    if "panoptic_seg" not in model_outputs(cfg):
        raise ValueError(
            f"The model of {config_file} predicts {sorted(model_outputs(cfg))} and no panoptic map to draw: "
            "take a config whose MODEL.META_ARCHITECTURE is panoptic."
        )
    return cfg


def load_lazy_cfg(args: argparse.Namespace) -> DictConfig:
    """As :func:`load_cfg`, of a LazyConfig; ``--opts`` are ``key=value``."""
    cfg = load_lazy_prediction_config(args.config_file, args.opts, args.register)
    view = yacs_view(cfg)
    if "panoptic_seg" not in model_outputs(view.cfg):
        raise ValueError(f"The model of {args.config_file} predicts no panoptic map to draw.")
    if args.confidence_threshold is not None:
        keys = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", _KEPT_SCORE)
        if not set(keys) <= set(view.names):
            raise ValueError("Where this LazyConfig has its thresholds is not known: set them with --opts key=value.")
        for key in keys:
            OmegaConf.update(cfg, view.names[key], args.confidence_threshold, force_add=True)
    if "outputs" in cfg.model:
        cfg.model.outputs = ["panoptic_seg"]  # the others cost memory and time
    return cfg


def load_predictor(args: argparse.Namespace) -> ImagePredictor:
    """Of a checkpoint or of an exported file."""
    if args.config_file and is_lazy_config(args.config_file):
        return PanopticPredictor(load_lazy_cfg(args))
    weights = dict(zip(args.opts[::2], args.opts[1::2], strict=False)).get("MODEL.WEIGHTS")
    path = weights or args.config_file
    if not path or not is_exported(path):
        return PanopticPredictor(load_cfg(args))
    return open_exported(path, _opts(args, _KEPT_SCORE))


def predict(
    paths: Sequence[str],
    predictor: ImagePredictor,
    output: str,
    writer: PanopticResultWriter | None,
    batch_size: int = 1,
) -> int:
    """Write an overlay and, with a writer, a result of each image; returns how many failed, which are named.

    The next images are read and the last ones written while the network predicts.
    """
    unique, failed = UniqueNames(), 0
    names = [unique.take(path) + ".png" for path in paths]

    def write(one: StreamedImage) -> None:
        if one.error is not None or one.output is None or one.image is None:
            raise one.error or ValueError("no output")
        panoptic_seg, segments_info = one.output["panoptic_seg"]
        overlay = draw_panoptic(one.image[:, :, ::-1], panoptic_seg, segments_info, predictor.metadata, hatch_void=True)
        save_image(os.path.join(output, names[one.number]), overlay)
        if writer is not None:
            writer.write(one.number + 1, paths[one.number], panoptic_seg, segments_info, png_name=names[one.number])

    with ThreadPoolExecutor(1) as pool:
        stream = tqdm(predictor.stream(paths, batch_size), "Predicting", total=len(paths), unit="image", disable=None)
        for index, error in _errors(pool, write, stream, 2 * batch_size):
            tqdm.write(_failure(paths[index], error), file=sys.stderr)
            failed += 1
    return failed


def _errors(
    pool: ThreadPoolExecutor, write: Callable[[StreamedImage], None], stream: Iterable[StreamedImage], most: int
) -> Iterator[tuple[int, Exception]]:
    """Write images in a thread, a few at a time waiting; yields which failed, and why."""
    writing: deque[tuple[int, Future[None]]] = deque()

    def finish() -> Iterator[tuple[int, Exception]]:
        index, future = writing.popleft()
        try:
            future.result()
        except Exception as error:  # whatever it is, the other images are spared
            yield index, error

    for one in stream:
        writing.append((one.number, pool.submit(write, one)))
        if len(writing) > most:
            yield from finish()
    while writing:
        yield from finish()


def predict_video(reader: VideoReader, predictor: ImagePredictor, output: str) -> str:
    """Write the overlays of all frames as one video, every class in one colour; returns its path."""
    path = os.path.join(output, f"{reader.name}.mp4")
    if os.path.realpath(path) == os.path.realpath(reader.source):
        raise ValueError(f"{path} is the video itself; choose another folder for --output.")
    frames = tqdm(reader, desc="Predicting", unit="frame", total=reader.num_frames, disable=None)
    count = 0
    try:
        with VideoWriter(path, reader.rate) as writer:
            for frame in frames:
                panoptic_seg, segments_info = predictor(frame)["panoptic_seg"]
                writer.write(
                    draw_panoptic(
                        frame[:, :, ::-1],
                        panoptic_seg,
                        segments_info,
                        predictor.metadata,
                        hatch_void=True,
                        vary=False,
                    )
                )
                count += 1
    except KeyboardInterrupt:
        if reader.num_frames is not None or not count:
            raise
    finally:
        reader.close()
    if not count:
        raise ValueError(f"{reader.source} has no frame that can be read.")
    return path


def _failure(path: str, error: Exception) -> str:
    """One line that names the image."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return reason if path in reason else f"Image {path}: {reason}"


def run_video(args: argparse.Namespace) -> int:
    """``--video-input``; returns the exit code."""
    if args.save_results or args.html:
        raise ValueError("--save-results and --html are for images: name them with --input.")
    reader = VideoReader(args.video_input)  # first: a wrong name should not wait for the model
    predictor = load_predictor(args)
    os.makedirs(args.output, exist_ok=True)
    print(f"Video: {predict_video(reader, predictor, args.output)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 when an image failed."""
    args = get_parser().parse_args(arguments)
    start_console(verbose=args.verbose)
    if args.video_input is not None:
        return run_video(args)
    paths = find_images(args.input, args.output)
    predictor = load_predictor(args)
    os.makedirs(args.output, exist_ok=True)
    if args.save_results or args.html:
        with PanopticResultWriter(args.output, PanopticCategories.from_metadata(predictor.metadata)) as writer:
            failed = predict(paths, predictor, args.output, writer, args.batch_size)
    else:
        failed = predict(paths, predictor, args.output, None, args.batch_size)
    print(f"{len(paths) - failed} overlays are in {args.output}.")
    if args.html and failed < len(paths):
        results = os.path.join(args.output, "predictions.json")
        title = f"{len(paths) - failed} images, predicted"
        print(f"Page: {write_report(os.path.join(args.output, 'report.html'), None, [results], title=title)[0]}")
    if failed:
        print(f"{failed} of {len(paths)} images could not be read or predicted; they are named above.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
