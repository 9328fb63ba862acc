"""``python -m panoptic_fpn_ext.report``: one page that shows where the points of PQ went, and the images to look at."""

import argparse
import os
from collections.abc import Sequence

from ..command import command_parser, real, run_command, whole
from .gallery import Budget
from .runs import files_of_runs, find_evaluation, report_of_run
from .thresholds import thresholds_section
from .writer import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report.

    Raises:
        OSError, ValueError: the files are not there, or not sound.
    """
    args = _parser().parse_args(arguments)
    for path in _write(args):
        print(f"Written: {path}")  # noqa: T201 (a command line)


def _write(args: argparse.Namespace) -> list[str]:
    budget = Budget(args.max_images, round(args.max_megabytes * 1e6))
    first = args.paths[0]
    if len(args.paths) == 1:
        if first.endswith(".json"):
            raise ValueError(f"{first} alone is not enough: name GT.json and PRED.json, or the folder of a run.")
        output = args.output or os.path.join(first, "report.html")
        evaluation = find_evaluation(first)
        print(f"Evaluation of {evaluation['dataset']} in {evaluation['folder']}")  # noqa: T201
        return report_of_run(first, output, images=args.images, budget=budget, thresholds=args.thresholds)
    files = {"gt_json": first, "predictions": args.paths[1:], "images": None, "gt_folder": None}
    if all(map(os.path.isdir, args.paths)):
        files = files_of_runs(args.paths)
    return write_report(
        args.output or "report.html",
        files["gt_json"],
        files["predictions"],
        images=args.images or files["images"],
        gt_folder=args.gt_folder or files["gt_folder"],
        pred_folders=args.pred_folder,
        names=args.names,
        budget=budget,
        more=[thresholds_section(args.thresholds)] if args.thresholds else [],
        more_files=[args.thresholds] if args.thresholds else [],
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        __doc__,
        "python -m panoptic_fpn_ext.report output/street\n"
        "python -m panoptic_fpn_ext.report panoptic_val.json a/predictions.json b/predictions.json --images val2017",
        prog="python -m panoptic_fpn_ext.report",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="OUTPUT_DIR [OUTPUT_DIR2], or GT.json PRED.json [PRED2.json]"
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images; without it segments are shown on grey")
    parser.add_argument("--gt-folder", metavar="DIR", help="the ground truth's PNGs (default: as GT.json)")
    parser.add_argument(
        "--pred-folder",
        metavar="DIR",
        action="append",
        default=[],
        help="the predictions' PNGs (default: as PRED.json); twice for two models",
    )
    parser.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the models")
    parser.add_argument(
        "--thresholds",
        metavar="JSON",
        help="thresholds.json of python -m panoptic_fpn_ext.thresholds (default: one in OUTPUT_DIR, if there is one)",
    )
    parser.add_argument("--output", metavar="FILE", help="default: report.html here, or in OUTPUT_DIR")
    parser.add_argument("--max-images", type=whole(0), default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--max-megabytes",
        type=real(0),
        default=22.0,
        metavar="MB",
        help="of all images together (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
