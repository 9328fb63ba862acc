"""The command."""

import argparse
from collections.abc import Sequence

from ..command import command_parser, real, run_command, whole
from .files import CombineOptions, combine_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Combine results and say where they are.

    Raises:
        OSError, ValueError: files that are not there or not sound.
    """
    args = _parser().parse_args(arguments)
    options = CombineOptions(args.score_threshold, args.overlap_threshold, args.stuff_area_threshold)
    number = combine_files(
        args.instances,
        args.semantics,
        args.images,
        args.output,
        categories=args.categories,
        folder=args.folder,
        options=options,
        processes=args.processes,
    )
    print(f"{number} images are in {args.output}.")  # noqa: T201 (a command line)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Merge instance and semantic results of any models into panoptic ones, as panopticapi does.",
        "python -m panoptic_fpn_ext.combine coco_instances_results.json sem_seg_predictions.json \\\n"
        "    panoptic_val2017.json output/panoptic.json",
        prog="python -m panoptic_fpn_ext.combine",
    )
    default = CombineOptions()
    parser.add_argument("instances", help="JSON of instance results in COCO's format")
    parser.add_argument(
        "semantics", help="JSON of semantic results, or a folder of label maps: PNGs whose values are category ids"
    )
    parser.add_argument("images", help="JSON with the images to combine")
    parser.add_argument("output", help="COCO panoptic JSON to write")
    parser.add_argument("--categories", metavar="JSON", help="COCO's panoptic categories (default: those of IMAGES)")
    parser.add_argument("--folder", help="for the PNGs (default: OUTPUT without .json)")
    parser.add_argument("--score-threshold", type=real(), default=default.score_threshold)
    parser.add_argument("--overlap-threshold", type=real(0, 1), default=default.overlap_threshold)
    parser.add_argument("--stuff-area-threshold", type=real(0), default=default.stuff_area_threshold, metavar="PIXELS")
    parser.add_argument("--processes", type=whole(0), default=0, help="how many; 0 for one a core")
    return parser


if __name__ == "__main__":
    run_command(main)
