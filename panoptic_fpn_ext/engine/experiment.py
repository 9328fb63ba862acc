"""One training of a series: in a process of its own, resumable, with its results in a file.

A series is a list of :class:`Experiment`; :func:`run_series` runs those that have no results yet. A run that was
interrupted goes on from its last checkpoint.
"""

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from tqdm import tqdm

from ..coco_json import load_json
from ..command import Interrupted, command_line, run_command
from ..config import add_panoptic_fpn_ext_config
from ..evaluation.prediction_writer import write_json
from ..whole_files import content_id
from .data_descriptions import add_register_argument, resolved
from .runs import has_checkpoint
from .settings.config_keys import in_pairs, merge_file, merge_pairs
from .settings.schedule import scale_schedule
from .setup import argument_parser, setup
from .trainer import Trainer

__all__ = ["METRICS", "Experiment", "add_series_arguments", "figures", "run_series"]

METRICS = {
    "AP": ("segm", "AP"),
    "PQ_Th": ("panoptic_seg", "PQ_th"),
    "mIoU": ("sem_seg", "mIoU"),
    "PQ_St": ("panoptic_seg", "PQ_st"),
    "PQ": ("panoptic_seg", "PQ"),
}
"""The columns of the paper's tables, and where detectron2's results have them."""

RESULTS, IDENTITY = "results.json", "identity.json"
NUM_SHOWN = 10


@dataclass(frozen=True)
class Experiment:
    """A config and what is changed in it; ``name`` is also the run's folder in the series."""

    name: str
    config_file: str
    opts: tuple[str, ...] = ()


def add_series_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Arguments of a series: ``--output``, ``--register`` and config options for all of its runs."""
    parser.add_argument("--output", default=output, metavar="DIR", help="default: %(default)s")
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="for all runs")


def run_series(
    experiments: Sequence[Experiment],
    output: str,
    registrations: Iterable[Sequence[str]] = (),
    opts: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Train and evaluate each experiment, unless ``output`` has its results already; the log of each is in its folder.

    Args:
        experiments: with different names.
        output: folder of the series.
        registrations: datasets, ``(name, image_root, panoptic_root, panoptic_json)`` each.
        opts: ``KEY VALUE …`` for all runs, of keys that no experiment sets.

    Returns:
        By name: ``results`` (detectron2's, in percent, None for NaN) and ``seconds_per_iteration`` (median, None if
        the last process only evaluated).

    Raises:
        ValueError: a folder has a run of another config or of other datasets, finished or not; or ``opts`` has a key
            that the experiments set.
        ChildProcessError: a run failed; the reason and its log are named.
    """
    own = {"OUTPUT_DIR", *(key for experiment in experiments for key, _ in in_pairs(experiment.opts))}
    ignored = [str(key) for key, _ in in_pairs(opts) if key in own]
    if ignored:
        raise ValueError(f"--opts: {', '.join(ignored)} is set for each run of the series. Leave it out.")
    found = {}
    progress = tqdm(experiments, unit="run", disable=None)
    for experiment in progress:
        progress.set_description(experiment.name)
        folder = Path(output, experiment.name)
        command = _command(experiment, folder, registrations, opts)
        _claim(folder, command)
        results = _read_results(folder) or _run(command, folder)
        found[experiment.name] = results
    return found


def figures(run: Mapping[str, Any]) -> dict[str, Any]:
    """The :data:`METRICS` of one of the runs that :func:`run_series` returns, in percent, None for NaN and for
    what the dataset cannot tell, as AP of one without things.
    """
    return {metric: run["results"].get(task, {}).get(key) for metric, (task, key) in METRICS.items()}


def _command(
    experiment: Experiment, folder: Path, registrations: Iterable[Sequence[str]], opts: Sequence[str]
) -> list[str]:
    """Arguments of this module's :func:`main`."""
    datasets = [word for one in registrations for word in ("--register", *one)]
    options = [*opts, *experiment.opts, "OUTPUT_DIR", str(folder)]
    return ["--config-file", experiment.config_file, "--resume", *datasets, *map(str, options)]


def _claim(folder: Path, command: list[str]) -> None:
    """Record whose folder it is before anything is trained, and refuse that of another run: it would go on with it."""
    path, here = folder / IDENTITY, _identity(command)
    if not (folder / RESULTS).is_file() and not has_checkpoint(str(folder)):  # it has nothing to lose
        folder.mkdir(parents=True, exist_ok=True)
        write_json(str(path), here)
        return
    there: list[str] = load_json(str(path)) if path.is_file() else ["not recorded"]
    if there != here:
        differences = [f"  there  {line}" for line in there if line not in here]
        differences += [f"  here   {line}" for line in here if line not in there]
        raise ValueError(
            f"{folder} has a run of another config or of other datasets (what one side alone has is a default of the "
            "other):\n" + "\n".join(differences[:NUM_SHOWN]) + "\nChoose another --output, or delete that folder."
        )


def _identity(command: list[str]) -> list[str]:
    """What a run is, a line each: all of its config that is no default, its datasets and the weights that it starts
    from, these two with what is in their files.

    A series may be moved, and so may its configs; keys that are added to the defaults do not change it.
    """
    args = argument_parser().parse_args(command)
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    defaults = set(_leaves(cfg))
    merge_file(cfg, args.config_file)
    merge_pairs(cfg, args.opts)
    scale_schedule(cfg, fixed=[str(key) for key in args.opts[::2]])
    cfg.OUTPUT_DIR = ""
    keys = sorted(line for line in _leaves(cfg) if line not in defaults)
    keys += [f"content of MODEL.WEIGHTS: {content_id(cfg.MODEL.WEIGHTS)}"] if cfg.MODEL.WEIGHTS else []
    for one in args.register:
        keys += [f"--register {' '.join(one)}", f"content of {one[0]}: {content_id(resolved(one[-1]))}"]
    return keys


def _leaves(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {value}"


def _read_results(folder: Path) -> dict[str, Any] | None:
    path = folder / RESULTS
    return load_json(str(path)) if path.is_file() else None


def _run(command: list[str], folder: Path) -> dict[str, Any]:
    log = folder / "process.log"
    with log.open("ab") as stream:
        before = stream.seek(0, os.SEEK_END)
        process = subprocess.Popen([sys.executable, "-m", __spec__.name, *command], stdout=stream, stderr=stream)
        try:
            status = process.wait()
        except KeyboardInterrupt as error:
            # The run ends its iteration and leaves a checkpoint. Ctrl-C has reached it already, other signals have not.
            if isinstance(error, Interrupted):
                process.terminate()
            process.wait()
            said = f"Stopped; {folder} keeps what was done. To go on: {command_line()}"
            tqdm.write(said, file=sys.stderr)
            raise Interrupted(getattr(error, "signal_number", signal.SIGINT), said) from None
    results = _read_results(folder)
    if status or results is None:
        raise ChildProcessError(
            f"A run failed (exit status {status}), whose log is {log}; the others are kept.{_reason(log, before)}"
        )
    return results


def _reason(log: Path, before: int) -> str:
    """The mistake that a process named last in the log's bytes from ``before`` on, as a line of its own; "" if none."""
    lines = log.read_bytes()[before:].decode("utf-8", errors="replace").splitlines()
    named = [line for line in lines if line.startswith("error: ")]
    return f" It said:\n{named[-1]}" if named else ""


def _train(cfg: CfgNode) -> None:
    """Train, evaluate and write the results."""
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(f"A run of a series is evaluated on one dataset; DATASETS.TEST has {list(cfg.DATASETS.TEST)}.")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    results: dict[str, Any] = trainer._last_eval_results  # of the evaluation that ends every training
    histories = trainer.storage.histories()
    seconds = [value for value, _ in histories["time"].values()] if "time" in histories else []
    content = {
        "results": {task: {k: _or_null(v) for k, v in values.items()} for task, values in results.items()},
        "seconds_per_iteration": statistics.median(seconds) if seconds else None,
    }
    write_json(str(Path(cfg.OUTPUT_DIR, RESULTS)), content)


def _or_null(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def main(arguments: Sequence[str]) -> None:
    """One experiment, in this process; the arguments are those of ``train_net.py``."""
    _train(setup(argument_parser().parse_args(arguments)))


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
