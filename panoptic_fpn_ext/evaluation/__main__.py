"""``python -m panoptic_fpn_ext.evaluation GT.json PRED.json``: Panoptic Quality of any model's predictions."""

import argparse
from collections.abc import Sequence

from ..command import command_parser, run_command
from ..whole_files import keep_inputs
from .files import count_files
from .prediction_writer import write_json
from .report import class_table, group_table, json_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write the JSON that is asked for.

    Raises:
        OSError, ValueError: the files are not there, or not sound.
    """
    args = _parser().parse_args(arguments)
    keep_inputs([args.json] if args.json else [], [args.gt_json, args.pred_json])
    counts = count_files(args.gt_json, args.pred_json, args.gt_folder, args.pred_folder)
    print(group_table(counts), class_table(counts), sep="\n\n")  # noqa: T201 (a command line)
    if args.json:
        write_json(args.json, json_report(counts))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Panoptic Quality of any model's predictions in COCO panoptic format, as panopticapi computes it.",
        "python -m panoptic_fpn_ext.evaluation panoptic_val.json output/inference/predictions.json --json quality.json",
        prog="python -m panoptic_fpn_ext.evaluation",
    )
    parser.add_argument("gt_json", help="COCO panoptic JSON of the ground truth")
    parser.add_argument("pred_json", help="COCO panoptic JSON of the predictions")
    parser.add_argument("--gt-folder", help="the ground truth's PNGs (default: GT.json's path without .json)")
    parser.add_argument("--pred-folder", help="the predictions' PNGs (default: PRED.json's path without .json)")
    parser.add_argument("--json", metavar="OUT", help="also write everything to this JSON file")
    return parser


if __name__ == "__main__":
    run_command(main)
