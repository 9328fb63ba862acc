"""The command: list the zoo, print where weights are, publish a checkpoint, convert one of another code base."""

import sys
from collections.abc import Sequence

from tabulate import tabulate

from ..command import command_parser, run_command
from ..zoo_files import config_key, config_names, get_checkpoint, measured_on, published
from . import convert, publish

_METRICS = ("PQ", "SQ", "RQ", "mIoU", "box AP", "mask AP")


def zoo_table() -> str:
    """Every config with its metrics, the dataset that they are of, and weights, as a Markdown table."""
    table, rows = published(), []
    for name in (name for name in config_names() if name.endswith(".yaml")):
        entry = table.get(config_key(name))
        figures = [entry["metrics"].get(metric) if entry else None for metric in _METRICS]
        dataset = measured_on(entry) if entry else None
        rows.append([config_key(name), dataset, *figures, entry["file"] if entry else "no published weights"])
    return tabulate(
        rows, headers=["config", "dataset", *_METRICS, "weights"], floatfmt=".1f", missingval="", tablefmt="pipe"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {"publish": publish.main, "convert": convert.main}
    if arguments and arguments[0] in commands:
        commands[arguments[0]](arguments[1:])
        return
    parser = command_parser(
        "List every config with its weights, or say where the weights of one are. publish -h: how to add some; "
        "convert -h: how to take those of other code bases.",
        "python -m panoptic_fpn_ext.model_zoo\n"
        "python -m panoptic_fpn_ext.model_zoo SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow",
        prog="python -m panoptic_fpn_ext.model_zoo",
    )
    parser.add_argument("name", nargs="?", help="config: print only where its weights are")
    name = parser.parse_args(arguments).name
    print(zoo_table() if name is None else get_checkpoint(name))  # noqa: T201


if __name__ == "__main__":
    run_command(main)
