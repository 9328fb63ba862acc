#!/usr/bin/env python
"""One network against two: the paper's comparison, at equal schedules.

    run.py [--setting NAME] [--seeds N] [--size H W] [--loss-weights SYSTEM S I …] [--output DIR]
           [--register NAME IMAGES PNGS JSON …] [--opts KEY VALUE …]

Trains and evaluates what has no results yet, prints the paper's table, draws the losses and measures what each system
costs. ``DIR/SETTING`` gets a folder for each run, ``one_vs_two_networks.json`` and ``learning_curves.png``.
``costs.py`` measures the models of any config.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib
import yaml
from tabulate import tabulate

from panoptic_fpn_ext.command import child_output, command_parser, run_command, whole
from panoptic_fpn_ext.engine.experiment import METRICS, Experiment, add_series_arguments, figures, run_series
from panoptic_fpn_ext.evaluation.prediction_writer import write_json
from panoptic_fpn_ext.report.curves import metrics_rows

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).resolve().parent
SETTINGS = sorted(folder.name for folder in (FOLDER / "configs").iterdir())
SYSTEMS = {
    "two networks": "two_networks.yaml",
    "one network": "one_network.yaml",
    "one network, larger backbone": "one_larger_network.yaml",
}
WEIGHTS = "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"
# What is drawn, and which of the two weights the trainings multiply it with.
LOSSES = {
    "semantic loss": (WEIGHTS[0], ["loss_sem_seg"]),
    "losses of boxes and masks": (WEIGHTS[1], ["loss_cls", "loss_box_reg", "loss_mask"]),
}


def experiments(args: argparse.Namespace) -> list[Experiment]:
    """Each system with each seed; the first seed of all systems comes first."""
    weights = {system: tuple(itertools.chain(*zip(WEIGHTS, pair, strict=True))) for system, *pair in args.loss_weights}
    return [
        Experiment(_run_name(file, seed), file, ("SEED", str(seed), *weights.get(system, ())))
        for seed in range(1, args.seeds + 1)
        for system, file in zip(SYSTEMS, config_files(args.setting), strict=True)
    ]


def _run_name(file: str, seed: int) -> str:
    return f"{Path(file).stem}_seed_{seed}"


def config_files(setting: str) -> list[str]:
    """In the order of the systems."""
    return [str(FOLDER / "configs" / setting / file) for file in SYSTEMS.values()]


def summarize(runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a system: each metric by seed, in percent, and seconds an iteration, the median over the seeds."""
    rows = []
    for system, file in SYSTEMS.items():
        of_system = [run for name, run in runs.items() if name.startswith(f"{Path(file).stem}_seed_")]
        by_seed = [figures(run) for run in of_system]
        seconds = [run["seconds_per_iteration"] for run in of_system if run["seconds_per_iteration"] is not None]
        rows.append(
            {
                "system": system,
                **{m: [one[m] for one in by_seed] for m in METRICS},
                "seconds": median(seconds) if seconds else None,
            }
        )
    return rows


def measure_costs(args: argparse.Namespace, output: Path) -> list[dict[str, Any]]:
    """Rows of ``costs.py``, in the order of the systems."""
    command = [sys.executable, str(FOLDER / "costs.py"), *config_files(args.setting), "--size", *map(str, args.size)]
    command += ["--json", str(output), *(word for one in args.register for word in ("--register", *one))]
    child_output([*command, "--opts", *args.opts])
    rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["rows"]
    return rows


def quality_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean over the seeds, and the lowest and highest."""
    text = [[row["system"], *(_spread(row[metric]) for metric in METRICS)] for row in rows]
    return tabulate(text, headers=["system", *METRICS], tablefmt="pipe", disable_numparse=True)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    text = f"{mean(known):.1f} ({min(known):.1f}–{max(known):.1f})" if known else "–"
    return text if len(known) in (0, len(values)) else f"{text} of {len(known)} runs"


def cost_table(rows: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]]) -> str:
    """What each system costs and, in brackets, its ratio to the first, the two networks."""
    joined = [
        {**{k: v for k, v in cost.items() if k != "config"}, "training (s / iteration)": row["seconds"]}
        for row, cost in zip(rows, costs, strict=True)
    ]
    text = [
        [row["system"], *(_with_ratio(v, joined[0][k]) for k, v in figures.items())]
        for row, figures in zip(rows, joined, strict=True)
    ]
    return tabulate(text, headers=["system", *joined[0]], tablefmt="pipe", disable_numparse=True)


def _with_ratio(value: float | None, first: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if first is None else f"{value:.3g} ({value / first:.2f})"


def learning_curve(folder: Path, loss: str) -> dict[int, float]:
    """One of the :data:`LOSSES` of a training, without its weight, by iteration; empty where the weight is 0.

    A value is detectron2's, the median of 20 iterations. What was done again after an interruption counts.
    """
    if not (folder / "metrics.json").is_file():
        return {}
    key, names = LOSSES[loss]
    weight = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for part in key.split("."):
        weight = weight[part]
    rows = metrics_rows(str(folder / "metrics.json"))
    return {row["iteration"]: sum(row[n] for n in names) / weight for row in rows if weight and set(names) <= set(row)}


def plot_learning_curves(output: Path, seeds: int) -> None:
    """A panel for each of the :data:`LOSSES`, a line a system: the mean over its trainings that have the loss."""
    figure, panels = plt.subplots(1, len(LOSSES), figsize=(10, 4))
    for panel, loss in zip(panels, LOSSES, strict=True):
        for system, file in SYSTEMS.items():
            folders = [output / _run_name(file, seed) for seed in range(1, seeds + 1)]
            curves = [curve for folder in folders if (curve := learning_curve(folder, loss))]
            iterations = sorted(set.intersection(*map(set, curves))) if curves else []
            means = [mean(curve[i] for curve in curves) for i in iterations]
            panel.plot(iterations, means, marker=".", label=system if means else f"{system}: not logged")
        panel.set(xlabel="iteration", ylabel=f"{loss}, without its weight", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(output / "learning_curves.png", dpi=120)
    plt.close(figure)


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse before hours of training what would be found in them."""
    for system, *weights in args.loss_weights:
        if system not in SYSTEMS:
            parser.error(f"--loss-weights: no system {system!r}, choose from {', '.join(SYSTEMS)}")
        for weight in weights:
            if not re.fullmatch(r"\d*\.?\d+", weight):
                parser.error(f"--loss-weights: λ_s and λ_i are numbers of at least 0, not {weight!r}")


def main() -> None:
    """Run the command line."""
    parser = command_parser(__doc__, "python projects/one_vs_two_networks/run.py --seeds 1 --opts SOLVER.MAX_ITER 500")
    parser.add_argument(
        "--setting", choices=SETTINGS, default="street", help="configs of the systems (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=whole(1), default=3, metavar="N", help="runs of each system (%(default)s)")
    parser.add_argument(
        "--size", nargs=2, type=whole(64), default=(160, 256), metavar=("H", "W"), help="for the costs, px"
    )
    parser.add_argument(
        "--loss-weights",
        nargs=3,
        action="append",
        default=[],
        metavar=("SYSTEM", "λ_s", "λ_i"),
        help="of one of the systems, which projects/loss_weights/run.py chooses (default: those of its config)",
    )
    add_series_arguments(parser, output="output/one_vs_two_networks")
    args = parser.parse_args()
    _check(parser, args)
    output = Path(args.output, args.setting)
    rows = summarize(run_series(experiments(args), str(output), args.register, args.opts))
    print(f"\n{quality_table(rows)}\n", flush=True)
    results: dict[str, Any] = {"quality": rows}
    write_json(str(output / "one_vs_two_networks.json"), results)
    plot_learning_curves(output, args.seeds)
    costs = results["costs"] = measure_costs(args, output / "costs.json")
    write_json(str(output / "one_vs_two_networks.json"), results)
    print(cost_table(rows, costs))


if __name__ == "__main__":
    run_command(main)
