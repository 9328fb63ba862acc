#!/usr/bin/env python
"""How much should each loss weigh? The paper's grid over λ_s and λ_i, and its curves with one weight at 1.

    run.py [--output DIR] [--register NAME IMAGES PNGS JSON …] [--opts KEY VALUE …]

Trains what has no results yet, then writes ``loss_weights.csv`` and ``loss_weights.png``, and prints the tables.
"""

import argparse
import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from tabulate import tabulate

from panoptic_fpn_ext.engine.experiment import Experiment, add_series_arguments, run_series

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CONFIG = Path(__file__).parent / "configs" / "one_network.yaml"
GRID = (0.5, 0.75, 1.0)
CURVE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
METRICS = {
    "AP": ("segm", "AP"),
    "PQ_Th": ("panoptic_seg", "PQ_th"),
    "mIoU": ("sem_seg", "mIoU"),
    "PQ_St": ("panoptic_seg", "PQ_st"),
    "PQ": ("panoptic_seg", "PQ"),
}
Weights = tuple[float, float]
Figures = dict[str, float | None]


def all_weights() -> list[Weights]:
    """(λ_s, λ_i) of all runs: the grid, then what the curves need besides."""
    curves = [(w, 1.0) for w in CURVE] + [(1.0, w) for w in CURVE]
    return list(dict.fromkeys([*itertools.product(GRID, GRID), *curves]))


def experiment(weights: Weights) -> Experiment:
    """The run of one pair of weights."""
    semantic, instance = map(str, weights)
    opts = ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", semantic, "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", instance)
    return Experiment(f"semantic_{semantic}_instance_{instance}", str(CONFIG), opts)


def figures(run: Mapping[str, Any], weights: Weights) -> Figures:
    """Metrics of a run in percent; what a weight of 0 leaves untrained is None."""
    semantic, instance = weights
    untrained = {"mIoU", "PQ_St", "PQ"} if semantic == 0 else set()
    untrained |= {"AP", "PQ_Th", "PQ"} if instance == 0 else set()
    return {m: None if m in untrained else run["results"][task][key] for m, (task, key) in METRICS.items()}


def curve_table(found: Mapping[Weights, Figures], pairs: list[Weights], metrics: tuple[str, ...]) -> str:
    """One row a weight: the one of the pair that varies."""
    varies = 0 if pairs[0][1] == pairs[-1][1] else 1
    rows = [[pair[varies], *(_text(found[pair][m]) for m in metrics)] for pair in pairs]
    return tabulate(rows, headers=["λ_s" if varies == 0 else "λ_i", *metrics], tablefmt="pipe", disable_numparse=True)


def grid_table(found: Mapping[Weights, Figures], metric: str = "PQ") -> str:
    """λ_s in rows, λ_i in columns."""
    rows = [[semantic, *(_text(found[semantic, instance][metric]) for instance in GRID)] for semantic in GRID]
    return tabulate(rows, headers=[f"{metric}: λ_s \\ λ_i", *map(str, GRID)], tablefmt="pipe", disable_numparse=True)


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
    for panel, (title, pairs) in zip(panels, curves().items(), strict=True):
        varies = 0 if pairs[0][1] == pairs[-1][1] else 1
        for metric in METRICS:
            points = [(pair[varies], found[pair][metric]) for pair in pairs if found[pair][metric] is not None]
            panel.plot(*zip(*points, strict=True), marker="o", label=metric)
        panel.set(xlabel=title, ylabel="percent")
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def curves() -> dict[str, list[Weights]]:
    """What varies, and the pairs of weights along it."""
    return {
        "λ_s (λ_i = 1)": [(w, 1.0) for w in CURVE],
        "λ_i (λ_s = 1)": [(1.0, w) for w in CURVE],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_series_arguments(parser, output="output/loss_weights")
    args = parser.parse_args()
    pairs = all_weights()
    runs = run_series([experiment(pair) for pair in pairs], args.output, args.register, args.opts)
    found = {pair: figures(run, pair) for pair, run in zip(pairs, runs.values(), strict=True)}
    write_csv(found, Path(args.output, "loss_weights.csv"))
    plot(found, Path(args.output, "loss_weights.png"))
    for (title, along), metrics in zip(
        curves().items(), (("mIoU", "AP", "PQ_Th", "PQ"), ("AP", "mIoU", "PQ_St", "PQ")), strict=True
    ):
        print(f"\n{title}\n\n{curve_table(found, along, metrics)}")
    print(f"\n{grid_table(found)}")


if __name__ == "__main__":
    main()
