"""``python -m panoptic_fpn_ext.thresholds``: PQ of every setting of the combiner's thresholds, from one inference.

One pass of the model over ``DATASETS.TEST`` stores what the combiner is given, about 30 kB an image of 480 × 640 px, in
OUTPUT/inputs, and goes on there if it was interrupted; then each setting is recounted without the model, and none is an
estimate: evaluation with a setting gives the same figure. OUTPUT gets thresholds.json with all settings,
thresholds.html with charts, and best.yaml, the config with the best one.
"""

import argparse
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate
from torch.utils.data import DataLoader
from tqdm import tqdm

from .. import model_zoo
from ..command import command_parser, real, run_command
from ..console import start_console
from ..data.panoptic_catalog import is_panoptic
from ..data.train_loader import dataset_hash
from ..engine import PanopticPredictor, Trainer
from ..engine.data_descriptions import add_register_argument
from ..engine.setup import load_config
from ..evaluation.errors.records import ErrorRecords, join_records
from ..evaluation.ground_truth import GroundTruth
from ..evaluation.model_ids import ModelIds, unlisted_categories
from ..evaluation.prediction_writer import write_json
from ..evaluation.records import ImageRecords, fold_records
from ..report.thresholds import write_thresholds_page
from ..whole_files import content_id, file_hash, whole_file
from .explain import explain
from .recount import Grid, ThresholdCounts, recount
from .stored import CombinerInputs, record, stored_path

OVERLAPS = (0.2, 0.35, 0.5, 0.65, 0.8)
SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AREAS = (0, 64, 256, 1024, 2048, 4096, 8192)
_SHOWN = 10


def get_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    name = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
    parser = command_parser(
        __doc__,
        f"python -m panoptic_fpn_ext.thresholds {name} zoo output/thresholds",
        prog="python -m panoptic_fpn_ext.thresholds",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML config: a file, or a name of the model zoo")
    parser.add_argument("weights", metavar="WEIGHTS", help="a checkpoint, or zoo for the published one of that name")
    parser.add_argument("output", metavar="OUTPUT", help="folder for the results")
    for option, kind, values, what in (
        ("--overlaps", real(0, 1), OVERLAPS, "OVERLAP_THRESH"),
        ("--scores", real(0, 1), SCORES, "INSTANCES_CONFIDENCE_THRESH"),
        ("--areas", real(0), AREAS, "STUFF_AREA_LIMIT, px"),
    ):
        shown = " ".join(map(str, values))
        parser.add_argument(
            option,
            nargs="+",
            type=kind,
            default=values,
            metavar="X",
            help=f"{what} to try besides the config's ({shown})",
        )
    parser.add_argument("--category", metavar="NAME", help="find the best setting for this class, not for all")
    parser.add_argument(
        "--errors",
        metavar="JSON",
        help="also write why points are lost with the config's thresholds, and which they cost",
    )
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        OSError, ValueError, KeyError: files, options or data that are not sound.
    """
    args = get_parser().parse_args(arguments)
    start_console()
    path = args.config if os.path.isfile(args.config) else model_zoo.get_config_file(args.config)
    weights = model_zoo.get_checkpoint(args.config) if args.weights == "zoo" else args.weights
    cfg = load_config(path, ["MODEL.WEIGHTS", weights, *args.opts], args.register, eval_only=True)
    if not any(map(is_panoptic, cfg.DATASETS.TEST[:1])):
        raise ValueError(
            f"DATASETS.TEST is {cfg.DATASETS.TEST}: name a panoptic dataset to count on, --opts DATASETS.TEST "
            "\"('my_val',)\"."
        )
    grid = _grid(args, cfg)
    dataset = cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(dataset)
    truth = GroundTruth(metadata.panoptic_json, metadata.panoptic_root, unlisted=unlisted_categories(metadata))
    wanted = _wanted(truth, args.category)
    os.makedirs(args.output, exist_ok=True)
    stored = _stored_inputs(cfg, dataset, os.path.join(args.output, "inputs"), min(grid.score))
    counts = ThresholdCounts(grid, truth.categories)
    ids = ModelIds(metadata)
    for position, file_name in _progress(sorted(_positions(truth, stored).items()), "recounting"):
        inputs = CombinerInputs.load(file_name)
        recount(counts, inputs, truth, position, ids, cfg.MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS)
    _report(args, cfg, counts, wanted)
    if args.errors:
        _explain(args.errors, cfg, truth, ids, _positions(truth, stored))


def _explain(path: str, cfg: CfgNode, truth: GroundTruth, ids: ModelIds, files: dict[int, str]) -> None:
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    setting = combine.OVERLAP_THRESH, combine.INSTANCES_CONFIDENCE_THRESH, combine.STUFF_AREA_LIMIT
    errors, records = ErrorRecords(truth), ImageRecords()
    for position, file_name in _progress(sorted(files.items()), "explaining"):
        inputs = CombinerInputs.load(file_name)
        counts = explain(errors, inputs, truth, position, ids, combine.THING_SEM_SEG_IDS, setting)
        records.add(position, counts)
    found = join_records(truth, [errors.state_dict()], fold_records([records], truth.categories))
    write_json(path, found.json())
    _show(f"Written: {path}")


def _grid(args: argparse.Namespace, cfg: CfgNode) -> Grid:
    """The values asked for and the config's own, ascending."""
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    own = combine.OVERLAP_THRESH, combine.INSTANCES_CONFIDENCE_THRESH, combine.STUFF_AREA_LIMIT
    values = [
        sorted({*given, float(one)}) for given, one in zip((args.overlaps, args.scores, args.areas), own, strict=True)
    ]
    return Grid(*(tuple(map(float, column)) for column in values))


def _wanted(truth: GroundTruth, name: str | None) -> Collection[int] | None:
    if name is None:
        return None
    found = [id_ for id_ in truth.categories.dataset_ids if truth.categories.name(id_) == name]
    if not found:
        known = ", ".join(map(truth.categories.name, truth.categories.dataset_ids))
        raise ValueError(f"The dataset has no category {name!r}; it has {known}.")
    return found


def _stored_inputs(cfg: CfgNode, dataset: str, folder: str, lowest_score: float) -> list[tuple[Any, str]]:
    """Image ids and files: those that are there already, if they are of this model and data, and those of a pass over
    the rest."""
    dicts = DatasetCatalog.get(dataset)
    index, key = os.path.join(folder, "index.json"), _key(cfg, dataset, dicts, lowest_score)
    stored = [(one["image_id"], stored_path(folder, number)) for number, one in enumerate(dicts)]
    if _key_of(index) != key:
        os.makedirs(folder, exist_ok=True)
        for path in Path(folder).glob("[0-9]*.npz"):
            path.unlink()
        write_json(index, {"key": key})
    done = next((number for number, (_, path) in enumerate(stored) if not zipfile.is_zipfile(path)), len(stored))
    if done < len(stored):
        predictor = PanopticPredictor(cfg)
        rest = _from(Trainer.build_test_loader(cfg, dataset), done)
        passed = record(predictor.model, rest, folder, lowest_score, done)
        for _ in tqdm(passed, desc="inference", initial=done, total=len(stored), unit="image", disable=None):
            pass
    return stored


def _key_of(index: str) -> str | None:
    """What the stored inputs are of; None where there are none, or none that can be read."""
    try:
        with open(index, encoding="utf-8") as f:
            content = json.load(f)
    except (OSError, ValueError):
        return None
    return content.get("key") if isinstance(content, dict) else None


def _from(loader: Any, first: int) -> DataLoader[Any]:
    """A test loader without the images before that number."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=range(first, len(loader.dataset)),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def _key(cfg: CfgNode, dataset: str, dicts: Sequence[dict[str, Any]], lowest_score: float) -> str:
    """Of what the inputs depend on: the data, and all of the config but the three thresholds and where things go."""
    cfg = cfg.clone()
    cfg.defrost()
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    combine.OVERLAP_THRESH, combine.INSTANCES_CONFIDENCE_THRESH, combine.STUFF_AREA_LIMIT, cfg.OUTPUT_DIR = 0, 0, 0, ""
    data = dataset_hash(dicts), file_hash(MetadataCatalog.get(dataset).panoptic_json)
    parts = cfg.dump(), dataset, *data, str(lowest_score), content_id(cfg.MODEL.WEIGHTS)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _positions(truth: GroundTruth, stored: Iterable[tuple[Any, str]]) -> dict[int, str]:
    found = {}
    for image_id, path in stored:
        position = truth.position(image_id)
        if position is None:
            raise ValueError(f"image {image_id!r}: the ground truth's JSON has no such image")
        found[position] = path
    return found


def _progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    return tqdm(items, desc=what, unit="image", disable=None)


def _report(args: argparse.Namespace, cfg: CfgNode, counts: ThresholdCounts, wanted: Collection[int] | None) -> None:
    quality = counts.pq(wanted)
    if np.isnan(quality).all():
        raise ValueError("No setting has a figure: the class occurs neither in ground truth nor in predictions.")
    own = _index(counts.grid, cfg)
    best = tuple(map(int, np.unravel_index(np.nanargmax(quality), quality.shape)))
    if quality[own] >= quality[best]:
        best = own  # no change without a gain
    order = np.argsort(-np.nan_to_num(quality, nan=-1), axis=None, kind="stable")[:_SHOWN]
    shown = [tuple(np.unravel_index(index, quality.shape)) for index in order]
    heads = ["overlap", "score", "area, px", "PQ" if wanted is None else f"PQ of {args.category}"]
    rows = [[*_values(counts.grid, at), quality[at]] for at in shown]
    _show(tabulate(rows, heads, floatfmt=("g", "g", "g", ".3f"), tablefmt="pipe"))
    _show(f"The config has {_text(counts.grid, own)}: {quality[own]:.3f}.")
    gain = quality[best] - quality[own]
    _show(f"Best of {quality.size}: {_text(counts.grid, best)}: {quality[best]:.3f} ({gain:+.3f}).")
    results = os.path.join(args.output, "thresholds.json")
    write_json(results, _content(counts, best, own, args.category))
    tuned = cfg.clone()
    tuned.defrost()
    combine = tuned.MODEL.PANOPTIC_FPN.COMBINE
    combine.OVERLAP_THRESH, combine.INSTANCES_CONFIDENCE_THRESH, area = _values(counts.grid, best)
    combine.STUFF_AREA_LIMIT = math.ceil(area)  # areas are whole
    with whole_file(os.path.join(args.output, "best.yaml")) as f:
        f.write(tuned.dump())
    page = os.path.join(args.output, "thresholds.html")
    write_thresholds_page(results, page, f"Thresholds of {os.path.splitext(os.path.basename(args.config))[0]}")
    _show(f"Written: {results}, {os.path.join(args.output, 'best.yaml')}, {page}")


def _index(grid: Grid, cfg: CfgNode) -> tuple[int, ...]:
    combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
    own = combine.OVERLAP_THRESH, combine.INSTANCES_CONFIDENCE_THRESH, combine.STUFF_AREA_LIMIT
    return tuple(column.index(float(value)) for column, value in zip(grid, own, strict=True))


def _values(grid: Grid, at: Sequence[Any]) -> list[float]:
    return [column[index] for column, index in zip(grid, at, strict=True)]


def _text(grid: Grid, at: Sequence[Any]) -> str:
    return "overlap {:g}, score {:g}, area {:g}".format(*_values(grid, at))


def _content(counts: ThresholdCounts, best: Sequence[Any], own: Sequence[Any], category: str | None) -> dict[str, Any]:
    """All settings for JSON: ``grid``, ``best``, ``config``, and ``settings``: PQ of all, things, stuff, each class."""
    ids = counts.categories.dataset_ids
    things = [id_ for id_ in ids if counts.categories.isthing(id_)]
    columns = {"PQ": counts.pq(), "PQ_th": counts.pq(things), "PQ_st": counts.pq(set(ids) - set(things))}
    per_class, names = counts.per_class(), [counts.categories.name(id_) for id_ in ids]
    settings = []
    for at in np.ndindex(*map(len, counts.grid)):
        row: dict[str, Any] = dict(zip(Grid._fields, _values(counts.grid, at), strict=True))
        row |= {name: _finite(column[at]) for name, column in columns.items()}
        settings.append({**row, "per_class": dict(zip(names, map(_finite, per_class[at]), strict=True))})
    settled = {
        name: dict(zip(Grid._fields, _values(counts.grid, at), strict=True))
        for name, at in (("best", best), ("config", own))
    }
    return {"grid": counts.grid._asdict(), "category": category, **settled, "settings": settings}


def _finite(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _show(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (a command line)


if __name__ == "__main__":
    run_command(main)
