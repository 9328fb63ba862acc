"""Reports: JSON of figures and, in every one, of what they depend on beside the code."""

import argparse
import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import panoptic_fpn_ext

__all__ = ["add_output_argument", "environment", "write_report"]

PACKAGES = ("torch", "torchvision", "detectron2", "sal-detectron2", "numpy")


def add_output_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--output FILE`` to a parser."""
    default = Path("output/benchmark") / name
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help="of figures; default: %(default)s")


def write_report(path: Path, figures: dict[str, Any], device: str = "cpu", more_packages: Sequence[str] = ()) -> None:
    """Write figures with their environment; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {**figures, "environment": environment(device, more_packages)}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def environment(device: str = "cpu", more_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions of what is installed, hardware, threads, load of the machine, and commit."""
    versions = {"python": platform.python_version(), "panoptic_fpn_ext": panoptic_fpn_ext.__version__}
    for package in (*PACKAGES, *more_packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "versions": versions,
        "commit": commit or None,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].split(": ", 1)[1] if names else platform.processor()
