"""Publishing a training checkpoint: ``python -m panoptic_fpn_ext.model_zoo publish``.

The weights are written without the optimizer and, but for norms and biases, in 16 bits, with the categories, under a
name that ends in the file's hash; what was written is evaluated; the table of the zoo gets a row, which is also printed
for the README.
"""

import argparse
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from .. import __version__
from ..command import command_parser
from ..engine.checkpoints.checkpoint import PanopticCheckpointer, recorded_source
from ..engine.checkpoints.model_categories import RECORD
from ..engine.checks import fill_in_num_classes
from ..engine.data_descriptions import add_register_argument
from ..engine.device import use_available_device
from ..engine.evaluating.evaluators import telling_outputs
from ..engine.settings.config_keys import merge_pairs
from ..engine.settings.model_outputs import model_outputs
from ..engine.setup import load_config
from ..engine.trainer import Trainer
from ..zoo_files import CHECKPOINTS, Entry, config_key, get_config_file, measured_on, published, write_table
from .configs import get_config, recipe
from .metrics import metrics_of_results, read_results

__all__ = ["publish", "readme_row", "release_weights"]

# What of a config may be another when the weights are measured: where the images are and what computes, not the model.
_FREE = ("DATASETS.", "DATALOADER.", "MODEL.DEVICE", "OUTPUT_DIR")
_README_METRICS = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st", "mIoU", "mask AP")


def release_weights(checkpoint: str, output_dir: str, name: str = "model_final") -> Path:
    """Write the weights of a training checkpoint for release.

    Args:
        checkpoint: what a trainer wrote.
        output_dir: folder of the result.
        name: first part of the file's name; the first six digits of its SHA-256 follow.

    Returns:
        Path of the result. Rounding to 16 bits may change the last digits of its metrics.
    """
    content = PanopticCheckpointer(nn.Module()).read(checkpoint)
    tensors = {key: torch.as_tensor(value) for key, value in content["model"].items()}
    categories = {key: content[key] for key in (RECORD,) if key in content}
    # Norms and biases stay as they are: small numbers, to which 16 bits are not kind, and few of them.
    rounded = {key: value.half() if value.ndim > 1 else value for key, value in tensors.items()}
    temporary = Path(output_dir) / f"{name}.part"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    released = {"model": rounded, "__author__": "panoptic_fpn_ext", "matching_heuristics": False, **categories}
    torch.save(released, temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    return temporary.rename(temporary.with_name(f"{name}_{digest[:6]}.pth"))


def publish(
    config: str,
    checkpoint: str,
    *,
    command: str,
    training: str,
    results_file: str | None = None,
    output_dir: str | None = None,
    opts: Sequence[str] = (),
    registrations: Sequence[list[str]] = (),
) -> str:
    """Write the released file of a checkpoint and its row in the table of the zoo.

    Args:
        config: name in the zoo.
        checkpoint: what a trainer wrote.
        command: what trained it.
        training: how long that took, on what.
        results_file: see :func:`~panoptic_fpn_ext.model_zoo.metrics.read_results`; without it, the released file is
            evaluated on ``DATASETS.TEST``.
        output_dir: folder of file and table, by default the package's.
        opts: ``KEY VALUE`` pairs on top of the config, for this machine: a row is of the config as it stands, so none
            may change the model.
        registrations: of datasets, as for ``--register``.

    Returns:
        Its row for the README.

    Raises:
        FileNotFoundError, KeyError, ValueError: no such config or checkpoint, one that does not fit the other, options
            that change the model, or metrics that are missing or of another dataset. Then no weights and no row are
            left behind.
    """
    folder = Path(output_dir) if output_dir else CHECKPOINTS
    cfg = _load_config(config, opts, registrations, checkpoint, needs_data=results_file is None)
    results = read_results(results_file, checkpoint, cfg.DATASETS.TEST[0]) if results_file else None
    model = build_model(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as unfinished:
        file = release_weights(checkpoint, unfinished, Path(config_key(config)).name)
        _load_exactly(model, file)
        metrics = metrics_of_results(Trainer.test(cfg, model) if results is None else results, _outputs(cfg, file))
        file.replace(folder / file.name)
    entry = Entry(
        file=file.name,
        dataset=cfg.DATASETS.TEST[0],
        metrics=metrics,
        source="panoptic_fpn_ext",
        command=command,
        training=training,
        versions=_versions(),
        recipe=recipe(config),
    )
    _put_into_table(config_key(config), entry, folder)
    return readme_row(config_key(config), entry, folder)


def readme_row(key: str, entry: Entry, folder: Path = CHECKPOINTS) -> str:
    """Row of the README's table: config, dataset, metrics, size of the file."""
    figures = (f"{entry['metrics'][name]:.1f}" if name in entry["metrics"] else "" for name in _README_METRICS)
    size = (folder / entry["file"]).stat().st_size / 1e6
    return " | ".join([f"| `{key}`", measured_on(entry), *figures, f"{size:.1f} MB |"])


def _load_config(
    config: str, opts: Sequence[str], registrations: Sequence[list[str]], checkpoint: str, *, needs_data: bool
) -> CfgNode:
    path = get_config_file(config)
    changing = [str(key) for key in opts[::2] if not str(key).startswith(_FREE)]
    if changing:
        raise ValueError(f"A row is of the config as it stands: write {', '.join(changing)} into {path}, not --opts.")
    if path.endswith(".py"):
        raise ValueError(f"{config} is a LazyConfig; publish under its YAML twin, {config_key(config)}.")
    if needs_data:
        cfg = load_config(path, ["MODEL.WEIGHTS", checkpoint, *opts], list(registrations), eval_only=True)
    else:
        cfg = get_config(config)
        merge_pairs(cfg, list(opts))
        use_available_device(cfg)
        fill_in_num_classes(cfg, recorded_source(checkpoint))
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(f"DATASETS.TEST must be the one dataset that the metrics are of, got {cfg.DATASETS.TEST}.")
    return cfg


def _load_exactly(model: nn.Module, file: Path) -> None:
    """Load weights of which the model needs all and knows all."""
    checkpointer = PanopticCheckpointer(model, complete=True)
    unknown = set(checkpointer.read(str(file))["model"]) - set(model.state_dict())
    if unknown:
        raise ValueError(f"The checkpoint has weights that the config's model lacks: {sorted(unknown)[:5]} …")
    checkpointer.load(str(file))


def _outputs(cfg: CfgNode, file: Path) -> frozenset[str]:
    """What must have been measured of a model."""
    source = recorded_source(str(file))
    return model_outputs(cfg) if source is None else telling_outputs(model_outputs(cfg), source.categories)


def _put_into_table(key: str, entry: Entry, folder: Path) -> None:
    """Write a row; the file that the config's former one named is removed, unless other rows name it."""
    table = published(folder)
    former = table.get(key)
    write_table({**table, key: entry}, folder)
    if former and former["file"] not in {row["file"] for row in published(folder).values()}:
        (folder / former["file"]).unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import detectron2  # for its version only

    return {"panoptic_fpn_ext": __version__, "detectron2": detectron2.__version__, "torch": version("torch")}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_parser(
        __doc__,
        "python -m panoptic_fpn_ext.model_zoo publish \\\n"
        "    SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow \\\n"
        "    output/model_final.pth --command 'python train_net.py …' --training '40 minutes on two cores'",
        prog="python -m panoptic_fpn_ext.model_zoo publish",
    )
    parser.add_argument("config", help="name of the config in the zoo")
    parser.add_argument("checkpoint", help="what the trainer wrote")
    parser.add_argument("--command", required=True, help="what trained it")
    parser.add_argument("--training", required=True, help="how long that took, on what")
    parser.add_argument(
        "--results", metavar="FILE", help="metrics.json of the training, or results as JSON, instead of evaluating"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="folder of file and table; default: the package's")
    add_register_argument(parser)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="where the images are: DATASETS.TEST …",
    )
    args = parser.parse_args(arguments)
    row = publish(
        args.config,
        args.checkpoint,
        command=args.command,
        training=args.training,
        results_file=args.results,
        output_dir=args.output_dir,
        opts=args.opts,
        registrations=args.register,
    )
    print(row)  # noqa: T201
