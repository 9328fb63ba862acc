"""Beginning a run: its folder, its log, what is said of it."""

import argparse
import hashlib
import logging
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import detectron2
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng

from .. import __version__
from ..command import typed_option
from ..console import open_log, start_console
from ..data import dataset_categories
from ..data.panoptic_catalog import is_panoptic
from ..whole_files import content_id, whole_file
from .checkpoints.checkpoint_files import has_checkpoints, how_to_take_last, newest_sound
from .checkpoints.weight_files import how_to_make
from .data_descriptions import USER_NAMES
from .output_folder import is_at_work, make_folder

__all__ = [
    "PROGRESS",
    "adopted",
    "augmented_folder",
    "begin_console",
    "begin_log",
    "has_checkpoint",
    "has_config",
    "inference_folder",
    "introduce",
    "refuse_missing_weights",
    "refuse_used_folder",
    "say_evaluated",
    "say_written",
    "seed_process",
    "shared_unused_folder",
    "unused_folder",
    "warn_of_learnt_images",
    "write_whole",
]

logger = logging.getLogger(__name__)

PROGRESS = "progress"
"""Folder of an evaluation's state, in that of its results; gone when the evaluation has ended."""

NUM_NAMED = 20
"""Classes of a kind that are named on the console."""


def begin_console(args: argparse.Namespace) -> None:
    """Set up the console of a process, as ``--verbose`` says; records are kept for the log until it begins."""
    start_console(verbose=getattr(args, "verbose", False), is_main_process=comm.is_main_process())


def begin_log(folder: str, config: str) -> None:
    """Begin ``log.txt`` in a folder with what is run: the command, the config and the environment, each once."""
    open_log(folder, comm.get_rank())
    logger.debug(f"Process {comm.get_rank()} of {comm.get_world_size()} of: {shlex.join(sys.orig_argv)}")
    logger.debug(f"Config:\n{config}")
    logger.debug(f"Environment:\n{collect_env_info()}")


def seed_process(seed: int) -> None:
    """Seed all random numbers of this process; below 0 they differ from run to run."""
    seed_all_rng(None if seed < 0 else seed + comm.get_rank())


def introduce(
    datasets: Sequence[str], *, output_dir: str, weights: str, resume: bool, training: str | None = None
) -> None:
    """Say what a run is.

    Args:
        datasets: to train on, then to evaluate on.
        output_dir: where checkpoints are.
        weights: what it starts from, a file or "".
        resume: whether it goes on from the last checkpoint, if there is one.
        training: iterations, images and device; None for an evaluation.
    """
    for name in [name for name in datasets if is_panoptic(name)][:1]:
        _say_classes(name)
    if resume and has_checkpoint(output_dir):
        weights = newest_sound(output_dir)
    logger.info(f"Weights: {weights or 'none, all parameters are drawn at random'}")
    if training is not None:
        logger.info(f"Training: {training}, into {output_dir}")


def _say_classes(dataset_name: str) -> None:
    categories = dataset_categories(dataset_name).metadata()
    things = categories["thing_classes"]
    stuff = [name for name in categories["stuff_classes"] if name not in (*things, "things")]
    logger.info(f"Classes: {_named(things, 'things')}, {_named(stuff, 'stuff')}")


def _named(names: list[str], kind: str) -> str:
    shown = ", ".join(names[:NUM_NAMED]) + (", …" if len(names) > NUM_NAMED else "")
    return f"{len(names)} {kind} ({shown})" if names else f"no {kind}"


def say_evaluated(folder: str) -> None:
    """:func:`say_written` of an evaluation, and of the one with ``TEST.AUG``."""
    for path in (folder, augmented_folder(folder)):
        if os.path.isdir(path):
            say_written(path)


def augmented_folder(folder: str) -> str:
    """Folder of what is evaluated with ``TEST.AUG``, beside that of the plain results."""
    return f"{folder}_TTA"


def say_written(folder: str) -> None:
    """Name what a run left in a folder; its checkpoints but the last are not worth a line."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in Path(folder).iterdir())
    shown = [n for n in names if not n.startswith((".", "model_0", "events.", "last_"))]
    logger.info(f"Written to {folder}: {', '.join(shown)}")


def adopted(
    registered: Sequence[str],
    train: Sequence[str],
    test: Sequence[str],
    *,
    typed: tuple[bool, bool] = (False, False),
    training: bool | None = True,
) -> tuple[Sequence[str], Sequence[str]]:
    """Which of the datasets of ``--register`` a run trains on and is evaluated on, where the config names others.

    Args:
        registered: names on the command line, in order: the first is to train on, the second to be evaluated on; one
            alone is for both.
        train, test: names in the config.
        typed: which of the two the command line sets, and the other then gets what that one leaves.
        training: whether the run trains; if not, nothing is said of what it would train on. None for one that only
            predicts, of which nothing is said.

    Returns:
        The names to train on and to be evaluated on. What changes is said, and what goes unused.
    """
    unused = [name for name in registered if name not in (*train, *test)]
    is_open = [not sets and not set(names) & set(registered) for names, sets in ((train, typed[0]), (test, typed[1]))]
    if not unused:
        return _absent_replaced(registered, train, test, is_open, training)
    if not any(is_open) or not (all(is_open) or any(typed)):
        used = ", ".join((*train, *test))
        logger.info(f"Datasets: {used} of the config; {', '.join(unused)} is registered and not used")
        return train, test
    if is_open[0]:
        train = unused[:1]
    if is_open[1]:
        test = (unused[1:2] if is_open[0] else []) or unused[:1]
    if training is None:
        return train, test
    parts = [f"{', '.join(train) or 'none'} to train on"] if training else []
    parts.append(f"{', '.join(test) or 'none'} to be evaluated on")
    left = [name for name in unused if name not in (*(train if training else ()), *test)]
    also = f"; not used: {', '.join(left)}" if left else ""
    logger.info(f"Datasets: {', '.join(parts)}, as they are registered{also}")
    return train, test


def _absent_replaced(
    registered: Sequence[str], train: Sequence[str], test: Sequence[str], is_open: Sequence[bool], training: bool | None
) -> tuple[Sequence[str], Sequence[str]]:
    """One dataset with a name of the config's own is for both, as one of another name is: the config's other name is of
    a dataset that is nowhere."""
    if not registered:
        return train, test
    found = []
    for names, free, read in ((train, is_open[0], training), (test, is_open[1], training is not None)):
        absent = free and bool(names) and set(names) <= set(USER_NAMES) and not set(names) & set(DatasetCatalog)
        found.append(registered[:1] if absent and read else names)
    for former, names, use in ((train, found[0], "train on"), (test, found[1], "be evaluated on")):
        if names is not former:
            logger.info(f"Datasets: {', '.join(names)} to {use}, since {', '.join(former)} is not registered")
    return found[0], found[1]


def warn_of_learnt_images(train: Sequence[str], test: Sequence[str]) -> None:
    """Say it where a training is evaluated on a dataset that it trains on."""
    names = ", ".join(name for name in test if name in train)
    if names:
        logger.warning(
            f"{names} is trained on and evaluated on: the results say how well the model knows the images that it has "
            "learnt, not how well it does on new ones. For a validation part add a second --register; `python -m "
            "panoptic_fpn_ext.data.convert … --split 0.8/0.2` makes both parts, and so does --split in --data."
        )


def has_checkpoint(output_dir: str) -> bool:
    """Whether there is a training to go on with."""
    return has_checkpoints(output_dir)


def has_config(output_dir: str) -> bool:
    """Whether a training wrote its ``config.yaml`` there."""
    return os.path.isfile(os.path.join(output_dir, "config.yaml"))


def refuse_missing_weights(path: str, key: str, *, needed: bool, folder: str = "") -> None:
    """Look for a file of weights before anything else is done; URLs are left to whoever downloads them.

    Args:
        path: what the config has.
        key: what it calls them.
        needed: for an evaluation.
        folder: of a training, whose last checkpoint may be meant then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: none is named where some are ``needed``.
    """
    last = how_to_take_last(folder, key) if needed else ""
    if not path and needed:
        raise ValueError(f"{key} is empty: set it to the checkpoint to evaluate. {last}".rstrip())
    if path and "://" not in path and not os.path.isfile(path):
        raise FileNotFoundError(f"There are no weights at {path} ({key}). {last or how_to_make(path)}".rstrip())


def refuse_used_folder(folder: str, key: str) -> None:
    """Keep a new run from mixing with what a folder holds.

    Args:
        folder: where the run would write.
        key: what the config calls that folder.

    Raises:
        ValueError: it holds a training, or results of an evaluation.
    """
    content = Path(folder)
    checkpoints = sorted(path.name for path in content.glob("model_*.pth"))
    metrics = content / "metrics.json"
    another = f"choose another folder, as with {typed_option(key, unused_folder(folder))}"
    if checkpoints or (metrics.is_file() and metrics.stat().st_size):
        found = checkpoints[-1] if checkpoints else metrics.name
        raise ValueError(f"{folder} holds a training already ({found}): go on with it by --resume, or {another}.")
    if any((content / "inference").glob("*")):
        raise ValueError(f"{content / 'inference'} holds results of an evaluation: {another}.")


def inference_folder(output_dir: str, weights: str = "", config: str = "", *, resume: bool = False) -> str:
    """Folder for the results of an evaluation, the same in all processes; made here.

    ``inference`` in ``output_dir``, or ``inference_2`` and so on where earlier results are; ``inference`` is left to a
    training that is at work. With ``resume``, it is that of an evaluation of these ``weights`` (a file) with this
    ``config`` that did not end, if there is one.
    """
    folder = ""
    if comm.is_main_process():
        name = "inference_2" if is_at_work(output_dir) else "inference"
        run = _fingerprint(weights, config)
        notes = sorted(Path(output_dir).glob(f"inference*/{PROGRESS}/run")) if resume else []
        begun = [str(note.parents[1]) for note in notes if note.read_text(encoding="utf-8") == run]
        folder = begun[-1] if begun else unused_folder(os.path.join(output_dir, name))
        os.makedirs(os.path.join(folder, PROGRESS), exist_ok=True)
        write_whole(os.path.join(folder, PROGRESS, "run"), run)
    found: Iterable[str] = comm.all_gather(folder)
    return next(iter(found))


def shared_unused_folder(folder: str) -> str:
    """:func:`unused_folder`, the same in all processes; made here."""
    if comm.is_main_process():
        folder = unused_folder(folder)
        make_folder(folder)
    found: Iterable[str] = comm.all_gather(folder)
    return next(iter(found))


def _fingerprint(weights: str, config: str) -> str:
    """The same for two evaluations with the same code, versions, config and weights."""
    versions = f"{__version__} {torch.__version__} {detectron2.__version__}"
    return hashlib.sha256(f"{versions}\n{config}\n{content_id(weights)}".encode()).hexdigest()


def unused_folder(folder: str) -> str:
    """This path, or with ``_2``, ``_3`` and so on behind it the first where nothing is."""
    folder = folder.rstrip(os.sep)
    candidate, number = folder, 1
    while os.path.exists(candidate) and (not os.path.isdir(candidate) or os.listdir(candidate)):
        number += 1
        candidate = f"{folder}_{number}"
    return candidate


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file so that no reader ever sees half of it, nor an interruption leaves half of it."""
    with whole_file(path) as f:
        f.write(text)
