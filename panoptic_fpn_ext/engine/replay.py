"""Repeat a training step whose losses or gradients were not finite, from what the training saved of it.

The same images, augmentations, random numbers and weights are used, process by process; nothing is trained.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from ..command import command_parser, run_command
from ..data.train_loader import TrainLoader
from .checkpoints.weight_files import read_weight_file
from .data_descriptions import add_data_argument, add_register_argument, registrations_of
from .lazy_config import load_lazy_config
from .lazy_training import build_lazy_model, build_lazy_optimizer
from .setup import load_config
from .trainer import Trainer
from .training.reproducible import IterationSeeds
from .training.train_step import TrainStep, choose_train_step

__all__ = ["replay"]


def replay(step: TrainStep, saved: dict[str, Any]) -> list[tuple[dict[str, float], list[str]]]:
    """Losses, and the parameters whose gradients are not finite, of each process that took the step.

    Args:
        step: of a model and a loader as in the training, in one process; the model gets the saved weights.
        saved: content of an ``iteration_*.pth`` of :mod:`~panoptic_fpn_ext.engine.training.nonfinite`.

    Raises:
        ValueError: the loader is none whose order can be found again.
    """
    loader, model = step.data_loader, step.model
    if not isinstance(loader, TrainLoader):
        raise ValueError(f"A step can be repeated with a {TrainLoader.__name__}, got {type(loader).__name__}.")
    model.load_state_dict(saved["model"])
    loader.seed, loader.start_iter = saved["seed"], saved["iteration"]
    batch = next(iter(loader))
    share = len(batch) // saved["processes"]
    found = []
    seeds = IterationSeeds(model)
    for rank in range(saved["processes"]):
        seeds.begin(loader.seed, loader.start_iter, rank, share)
        step.optimizer.zero_grad()
        with EventStorage(loader.start_iter):
            losses = step.forward_backward(batch[rank * share : (rank + 1) * share])
        gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        found.append(({name: float(loss) for name, loss in losses.items()}, gradients))
    seeds.remove()
    return found


def _lazy_step(args: argparse.Namespace, registrations: list[list[str]]) -> TrainStep:
    cfg = load_lazy_config(args.config_file, args.opts, registrations)
    model = build_lazy_model(cfg)
    steps, mixed = cfg.train.get("accumulate_steps", 1), cfg.train.amp.enabled
    optimizer, loader = build_lazy_optimizer(cfg, model), instantiate(cfg.dataloader.train)
    return choose_train_step(model, loader, optimizer, accumulate_steps=steps, mixed_precision=mixed)


def _is_lazy(path: str) -> bool:
    return path.endswith(".py") or "dataloader" in yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status is 1 where the step is again not finite."""
    parser = command_parser(
        __doc__,
        "python -m panoptic_fpn_ext.engine.replay output/mine/non_finite/iteration_0000012.pth \\\n"
        "    --register my_train IMAGES PNGS TRAIN.json --register my_val IMAGES PNGS VAL.json",
        prog="python -m panoptic_fpn_ext.engine.replay",
    )
    parser.add_argument("file", metavar="FILE", help="iteration_*.pth in the folder non_finite of a run")
    parser.add_argument("--config-file", metavar="FILE", help="by default the run's own config.yaml")
    add_register_argument(parser)
    add_data_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    args = parser.parse_args(arguments)
    args.config_file = args.config_file or os.path.join(os.path.dirname(args.file), os.pardir, "config.yaml")
    registrations = [*args.register, *registrations_of(args.data or ())]
    saved = read_weight_file(args.file)
    if _is_lazy(args.config_file):
        step = _lazy_step(args, registrations)
    else:
        cfg = load_config(args.config_file, args.opts, registrations).clone()
        step = Trainer(cfg)._trainer
    return _show(replay(step, saved), saved)


def _show(found: Sequence[tuple[dict[str, float], list[str]]], saved: dict[str, Any]) -> int:
    lines = [f"Iteration {saved['iteration'] + 1}, seed {saved['seed']}"]
    for rank, (losses, gradients) in enumerate(found):
        images = ", ".join(str(image.get("file_name", image.get("image_id"))) for image in saved["images"][rank])
        lines += [f"Process {rank}: {images}"]
        lines += [f"  {name}: {value:g} (then {saved['losses'][rank][name]:g})" for name, value in losses.items()]
        lines += [f"  gradients that are not finite: {', '.join(gradients[:10]) or 'none'} ({len(gradients)})"]
    print("\n".join(lines))  # noqa: T201 (a command line)
    values = torch.tensor([value for losses, _ in found for value in losses.values()])
    return int(bool((~values.isfinite()).any()) or any(gradients for _, gradients in found))


if __name__ == "__main__":
    run_command(main)
