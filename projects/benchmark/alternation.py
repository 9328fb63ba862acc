"""Measuring two sides in turn, or each in a process of its own; shared by the scripts of this folder."""

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from panoptic_fpn_ext.command import child_output
from panoptic_fpn_ext.engine.device import synchronize
from panoptic_fpn_ext.engine.memory import PeakMemory

__all__ = [
    "PeakMemory",
    "Sides",
    "alternate",
    "memory_in_fresh_processes",
    "print_rows",
    "row",
    "timed",
]

Sides = dict[str, Callable[[int], Any]]


def alternate(sides: Sides, rounds: int, device: str) -> list[dict[str, Any]]:
    """Wall and processor seconds of each side in turn, after one round that does not count."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, side in sides.items():
            seconds = timed(side, round_, device)
            if round_:
                samples[name].append(seconds)
    return [row(name, [s[0] for s in v], [s[1] for s in v], samples["detectron2"]) for name, v in samples.items()]


def timed(side: Callable[[int], Any], seed: int, device: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    synchronize(device)
    start, cpu = time.perf_counter(), time.process_time()
    side(seed)
    synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu


def row(name: str, wall: list[float], cpu: list[float], baseline: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, spread, and medians of the ratios to what ran just before."""
    return {
        "side": name,
        "wall_s": median(wall),
        "wall_spread_s": [min(wall), max(wall)],
        "cpu_s": median(cpu),
        "wall_ratio": median(x / b[0] for x, b in zip(wall, baseline, strict=True)),
        "cpu_ratio": median(x / b[1] for x, b in zip(cpu, baseline, strict=True)),
    }


def memory_in_fresh_processes() -> list[dict[str, Any]]:
    """Each side in a process of its own."""
    rows = []
    for side in ("detectron2", "ours"):
        command = [sys.executable, *sys.argv, "--child", side]
        lines = child_output(command).splitlines()
        rows.append(json.loads(lines[-1]))
    for entry in rows:
        entry["ratio"] = entry["extra_mb"] / rows[0]["extra_mb"]
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The table, in Markdown."""
    keys = list(rows[0])
    print("| " + " | ".join(keys) + " |\n" + "|---" * len(keys) + "|")
    for entry in rows:
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in entry.values()) + " |")
