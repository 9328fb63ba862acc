#!/usr/bin/env python
"""Why does one network lose here, where the paper's does not? Two networks and one, with one thing changed at a time.

    causes.py [--seeds N] [--only NAME …] [--output DIR] [--register NAME IMAGES PNGS JSON …] [--opts KEY VALUE …]

Trains and evaluates what has no results yet, prints a table and writes it to ``causes.json``. The ImageNet weights that
one change needs are made by ``python -m panoptic_fpn_ext.engine.imagenet_weights output/efficientnet_lite0.pth``.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tabulate import tabulate

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine.experiment import METRICS, Experiment, add_series_arguments, figures, run_series

CONFIGS = Path(__file__).resolve().parent / "configs"
SYSTEMS = {"two networks": "two_networks.yaml", "one network": "one_network.yaml"}
# The folder of the configs, and what is changed in them.
CHANGES: dict[str, tuple[str, dict[str, str]]] = {
    "as it is": ("street", {}),
    "EfficientNet from scratch": ("street_from_imagenet", {"MODEL.WEIGHTS": "", "MODEL.EFFICIENTNET_LITE.NORM": "BN"}),
    "EfficientNet from ImageNet": ("street_from_imagenet", {}),
    "4 times as long": ("street", {"SOLVER.MAX_ITER": "2000"}),
    "pyramid twice as wide": ("street", {"MODEL.FPN.OUT_CHANNELS": "128"}),
    "semantic loss at a quarter": ("street", {"MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "0.25"}),
}


def experiment(change: str, file: str, seed: int) -> Experiment:
    """One run; its folder is named after the change, the system and the seed."""
    name = f"{change.replace(' ', '_')}_{Path(file).stem}_seed_{seed}"
    folder, opts = CHANGES[change]
    return Experiment(name, str(CONFIGS / folder / file), ("SEED", str(seed), *itertools.chain(*opts.items())))


def summarize(changes: Sequence[str], seeds: int, runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a change and system: each metric by seed, in percent."""
    rows = []
    for change, (system, file) in itertools.product(changes, SYSTEMS.items()):
        by_seed = [figures(runs[experiment(change, file, seed).name]) for seed in range(1, seeds + 1)]
        rows.append({"change": change, "system": system, **{m: [one[m] for one in by_seed] for m in METRICS}})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the seeds of two networks / one, and how far two are ahead."""
    text = []
    for two, one in zip(rows[::2], rows[1::2], strict=True):
        text.append([two["change"], *(_cell(two[metric], one[metric]) for metric in METRICS)])
    return tabulate(text, headers=["change", *METRICS], tablefmt="pipe", disable_numparse=True)


def _cell(two: Sequence[float | None], one: Sequence[float | None]) -> str:
    if None in (*two, *one):
        return "–"
    a, b = (mean(value for value in values if value is not None) for values in (two, one))
    return f"{a:.1f} / {b:.1f} ({a - b:+.1f})"


def main() -> None:
    """Run the command line."""
    parser = command_parser(
        __doc__, 'python projects/one_vs_two_networks/causes.py --only "as it is" "4 times as long"'
    )
    parser.add_argument("--seeds", type=whole(1), default=3, metavar="N", help="runs of each system (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="NAME", help=", ".join(CHANGES)
    )
    add_series_arguments(parser, output="output/one_vs_two_networks/causes")
    args = parser.parse_args()
    wanted = [
        experiment(change, file, seed)
        for seed, change, file in itertools.product(range(1, args.seeds + 1), args.only, SYSTEMS.values())
    ]
    rows = summarize(args.only, args.seeds, run_series(wanted, args.output, args.register, args.opts))
    Path(args.output, "causes.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    run_command(main)
