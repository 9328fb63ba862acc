#!/usr/bin/env python
"""One network against two: the paper's comparison, at equal schedules.

    run.py [--seeds N] [--output DIR] [--register NAME IMAGES PNGS JSON …] [--opts KEY VALUE …]

Trains what has no results yet, measures what each system costs, then prints the paper's table and writes
``one_vs_two_networks.json``.
"""

import argparse
from pathlib import Path

from panoptic_fpn_ext.engine.experiment import Experiment, add_series_arguments, run_series

CONFIGS = Path(__file__).parent / "configs"
SYSTEMS = {
    "two networks": "two_networks.yaml",
    "one network": "one_network.yaml",
    "one network, larger backbone": "one_larger_network.yaml",
}


def experiments(seeds: int) -> list[Experiment]:
    """Each system with each seed; the first seed of all systems comes first."""
    return [
        Experiment(f"{Path(file).stem}_seed_{seed}", str(CONFIGS / file), ("SEED", str(seed)))
        for seed in range(1, seeds + 1)
        for file in SYSTEMS.values()
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each system (default: %(default)s)")
    add_series_arguments(parser, output="output/one_vs_two_networks")
    args = parser.parse_args()
    runs = run_series(experiments(args.seeds), args.output, args.register, args.opts)
    print(runs)


if __name__ == "__main__":
    main()
