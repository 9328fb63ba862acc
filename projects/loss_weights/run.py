#!/usr/bin/env python
"""How much should each loss weigh? The paper's grid over λ_s and λ_i, and its curves with one weight at 1.

    run.py [--config-file FILE] [--grid-only] [--seed N] [--output DIR] [--register NAME IMAGES PNGS JSON …]
           [--opts KEY VALUE …]

Trains what has no results yet, then writes ``loss_weights.csv`` (of the grid alone ``loss_weights_grid.csv``) and
``loss_weights.png``, and prints the tables and the
pair of the grid with the highest PQ, the paper's choice.
"""

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from tabulate import tabulate

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine.experiment import METRICS, Experiment, add_series_arguments, run_series
from panoptic_fpn_ext.engine.experiment import figures as experiment_figures

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CONFIG = Path(__file__).parent / "configs" / "one_network.yaml"
GRID = (0.5, 0.75, 1.0)
Weights = tuple[float, float]  # λ_s, λ_i
Figures = dict[str, float | None]
ALONG_CURVE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
CURVES: dict[str, list[Weights]] = {
    "λ_s": [(weight, 1.0) for weight in ALONG_CURVE],
    "λ_i": [(1.0, weight) for weight in ALONG_CURVE],
}


def all_weights() -> list[Weights]:
    """Those of all runs: the grid, then what the curves need besides."""
    return list(dict.fromkeys(itertools.chain(itertools.product(GRID, GRID), *CURVES.values())))


def experiment(weights: Weights, config_file: str, seed: int) -> Experiment:
    """The run of one pair of weights."""
    semantic, instance = map(str, weights)
    opts = ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", semantic, "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", instance)
    return Experiment(f"semantic_{semantic}_instance_{instance}", config_file, ("SEED", str(seed), *opts))


def figures(run: Mapping[str, Any], weights: Weights) -> Figures:
    """Metrics of a run in percent; what a weight of 0 leaves untrained is None."""
    semantic, instance = weights
    untrained = {"mIoU", "PQ_St", "PQ"} if semantic == 0 else set()
    untrained |= {"AP", "PQ_Th", "PQ"} if instance == 0 else set()
    return {metric: None if metric in untrained else value for metric, value in experiment_figures(run).items()}


def curve_table(found: Mapping[Weights, Figures], varied: str) -> str:
    """One row a value of the weight that is varied; the other one is 1."""
    rows = [
        [weight, *(_text(value) for value in found[pair].values())]
        for weight, pair in zip(ALONG_CURVE, CURVES[varied], strict=True)
    ]
    return tabulate(rows, headers=[varied, *METRICS], tablefmt="pipe", disable_numparse=True)


def grid_table(found: Mapping[Weights, Figures], metric: str = "PQ") -> str:
    """λ_s in rows, λ_i in columns."""
    rows = [[semantic, *(_text(found[semantic, instance][metric]) for instance in GRID)] for semantic in GRID]
    return tabulate(rows, headers=[f"{metric}: λ_s \\ λ_i", *map(str, GRID)], tablefmt="pipe", disable_numparse=True)


def best_weights(found: Mapping[Weights, Figures]) -> list[Weights]:
    """Of the grid, the pairs with the highest PQ: one but for ties, none where no run has a PQ."""
    known = {pair: value for pair in itertools.product(GRID, GRID) if (value := found[pair]["PQ"]) is not None}
    return [pair for pair, value in known.items() if value == max(known.values())]


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def write_csv(found: Mapping[Weights, Figures], path: Path) -> None:
    """All runs, one a line."""
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["lambda_s", "lambda_i", *METRICS])
        writer.writerows([*weights, *values.values()] for weights, values in found.items())


def plot(found: Mapping[Weights, Figures], path: Path) -> None:
    """Both curves, side by side."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for panel, (varied, pairs) in zip(panels, CURVES.items(), strict=True):
        for metric in METRICS:
            points = [(w, found[pair][metric]) for w, pair in zip(ALONG_CURVE, pairs, strict=True)]
            panel.plot(
                *zip(*(point for point in points if point[1] is not None), strict=True), marker="o", label=metric
            )
        panel.set(xlabel=f"{varied} (the other weight is 1)", ylabel="percent")
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = command_parser(
        __doc__, "python projects/loss_weights/run.py --output output/loss_weights --opts SOLVER.MAX_ITER 500"
    )
    parser.add_argument("--config-file", default=str(CONFIG), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--grid-only", action="store_true", help="without the curves: 9 trainings, not 15")
    parser.add_argument("--seed", type=whole(0), default=1, metavar="N", help="of all trainings (default: %(default)s)")
    add_series_arguments(parser, output="output/loss_weights")
    args = parser.parse_args()
    pairs = list(itertools.product(GRID, GRID)) if args.grid_only else all_weights()
    wanted = [experiment(pair, args.config_file, args.seed) for pair in pairs]
    runs = run_series(wanted, args.output, args.register, args.opts)
    found = {pair: figures(run, pair) for pair, run in zip(pairs, runs.values(), strict=True)}
    write_csv(found, Path(args.output, "loss_weights_grid.csv" if args.grid_only else "loss_weights.csv"))
    if not args.grid_only:
        plot(found, Path(args.output, "loss_weights.png"))
        for varied in CURVES:
            print(f"\n{curve_table(found, varied)}")
    best = " and ".join(f"λ_s {semantic}, λ_i {instance}" for semantic, instance in best_weights(found))
    print(f"\n{grid_table(found)}\n\nHighest PQ: {best or 'no run has one'}")


if __name__ == "__main__":
    run_command(main)
