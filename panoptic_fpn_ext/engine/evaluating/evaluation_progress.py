"""Evaluations that one unreadable image does not end, and that go on where they were killed."""

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.common import MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...data.train_loader import dataset_hash
from ...evaluation import PanopticQualityEvaluator
from ...evaluation.cityscapes import ImageOverlaps
from ...structures import UnreadableFileError
from ...whole_files import file_hash, whole_file
from ..checkpoints.weight_files import read_weight_file

__all__ = ["evaluate_dataset", "forget_progress"]

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 10.0
"""Seconds between two states on disk, and never more than a twentieth of the time."""
_REST = 20  # of the time that writing a state takes

# What evaluators gather from image to image.
_GATHERED = {
    "PanopticSemSegEvaluator": ("_confusion",),
    "SemSegEvaluator": ("_conf_matrix", "_b_conf_matrix", "_predictions"),
    "COCOEvaluator": ("_predictions",),
    "COCOPanopticEvaluator": ("_predictions",),
    "CityscapesInstanceEvaluator": ("_images",),
}
_FILE = re.compile(r"attempt(\d+)\.rank(\d+)\.pth")


def evaluate_dataset(
    model: nn.Module, loader: Any, evaluator: DatasetEvaluator, folder: str | None = None
) -> dict[str, Any]:
    """detectron2's `inference_on_dataset`; an image that cannot be read is left out until the end.

    Args:
        model: the model.
        loader: of `build_detection_test_loader`; another one, or one with another sampler, is used as it is.
        evaluator: one, or detectron2's `DatasetEvaluators`.
        folder: where the state of an evaluation is, and goes every few seconds, shared by all processes; what an
            earlier one with the same model and evaluators left there is not done again if the images and the ground
            truth's JSON are the same. :func:`forget_progress` ends it, and so do errors in the ground truth.

    Returns:
        Results of the main process; others have an empty dict.

    Raises:
        UnreadableFileError: images could not be read; all of them are named, in all processes.
    """
    if not isinstance(loader, DataLoader) or type(loader.sampler) is not InferenceSampler or loader.batch_size is None:
        return inference_on_dataset(model, loader, evaluator) or {}
    progress = _Progress(evaluator, folder, loader.dataset)
    return inference_on_dataset(model, _Remaining(loader, progress), progress) or {}


def forget_progress(folder: str | None) -> None:
    """Remove the state of an evaluation that has ended; to be called by all processes."""
    comm.synchronize()
    if folder is not None and comm.is_main_process():
        shutil.rmtree(folder, ignore_errors=True)


class _Tolerant(Dataset[dict[str, Any]]):
    """Gives what is wrong with an image instead of raising it."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._dataset[index]
            return found
        except (OSError, ValueError) as error:
            return {"unreadable": str(error)}


class _Remaining:
    """Batches of what has not been evaluated yet, of this process's share of it."""

    def __init__(self, loader: Any, progress: "_Progress") -> None:
        self._loader, self._progress = loader, progress
        progress.begin()
        left = [index for index in range(len(loader.dataset)) if index not in progress.done_before]
        share = InferenceSampler._get_local_indices(len(left), comm.get_world_size(), comm.get_rank())
        self._indices = [left[i] for i in share]

    def __len__(self) -> int:
        return -(-len(self._indices) // self._loader.batch_size)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        loader = DataLoader(
            _Tolerant(self._loader.dataset),
            batch_size=self._loader.batch_size,
            sampler=self._indices,
            num_workers=self._loader.num_workers,
            collate_fn=self._loader.collate_fn,
        )
        start = 0
        for batch in loader:
            indices = self._indices[start : start + len(batch)]
            start += len(batch)
            self._progress.note([one["unreadable"] for one in batch if "unreadable" in one])
            found = [(i, one) for i, one in zip(indices, batch, strict=True) if "unreadable" not in one]
            if found:
                self._progress.indices = [i for i, _ in found]
                yield [one for _, one in found]


class _Progress(DatasetEvaluator):
    """An evaluator whose state is on disk."""

    def __init__(self, evaluator: DatasetEvaluator, folder: str | None, dataset: Any) -> None:
        self._evaluator = evaluator
        self._parts = list(getattr(evaluator, "_evaluators", [evaluator]))
        can_be_saved = all(_accumulators(part) is not None for part in self._parts)
        self._folder = folder if can_be_saved else None
        self._data = "" if self._folder is None else _data_hash(dataset, self._parts)
        self._unreadable: list[str] = []
        self._done: list[int] = []
        self._attempt = 0
        self._next_save = 0.0
        self.done_before: set[int] = set()
        self.indices: list[int] = []

    def begin(self) -> None:
        """Find what an earlier evaluation left; each process takes a share of it over."""
        self._evaluator.reset()
        if self._folder is None:
            return
        self._attempt, paths = _last_complete(self._folder, self._data) if comm.is_main_process() else (0, [])
        self._attempt, paths = comm.all_gather((self._attempt, paths))[0]
        self._attempt += 1
        for number, path in enumerate(paths):
            content = read_weight_file(path)
            self.done_before.update(content["done"])
            if number % comm.get_world_size() == comm.get_rank():
                self._done += content["done"]
                for part, state in zip(self._parts, content["states"], strict=True):
                    _restore(part, state)
        os.makedirs(self._folder, exist_ok=True)
        self._save()
        comm.synchronize()  # all is taken over before it is removed
        for path in paths if comm.is_main_process() else ():
            os.remove(path)
        if self.done_before and comm.is_main_process():
            logger.info(f"{len(self.done_before)} images were evaluated before, the evaluation goes on with the rest.")

    def reset(self) -> None:
        """Nothing: :meth:`begin` has done it, and what was restored stays."""

    def note(self, problems: Sequence[str]) -> None:
        """Count images that cannot be read."""
        for problem in problems:
            logger.warning(f"{problem} The evaluation goes on without it and will end with an error.")
        self._unreadable += problems

    def process(self, inputs: Any, outputs: Any) -> None:
        """As of the evaluator."""
        self._evaluator.process(inputs, outputs)
        self._done += self.indices
        if self._folder is not None and time.monotonic() >= self._next_save:
            self._save()

    def evaluate(self) -> Any:
        """As of the evaluator; ``UnreadableFileError`` if anything could not be read."""
        problems = [problem for part in comm.all_gather(self._unreadable) for problem in part]
        if problems:
            if self._folder is not None:
                self._save()
            lines = "".join(f"\n  - {problem}" for problem in problems)
            again = " Mend them and evaluate again with --resume: the others are done." if self._folder else ""
            number = "1 image" if len(problems) == 1 else f"{len(problems)} images"
            raise UnreadableFileError(f"{number} could not be read, so there are no results.{again}{lines}")
        try:
            return self._evaluator.evaluate()
        except Exception:
            # Whatever is wrong with the data is mended before the next attempt, which must see it all again.
            for path in Path(self._folder).glob(f"*.rank{comm.get_rank()}.pth") if self._folder is not None else ():
                path.unlink()
            raise

    def _save(self) -> None:
        assert self._folder is not None
        start = time.monotonic()
        content = {
            "done": self._done,
            "states": [_state(part) for part in self._parts],
            "processes": comm.get_world_size(),
            "data": self._data,
        }
        with whole_file(os.path.join(self._folder, f"attempt{self._attempt}.rank{comm.get_rank()}.pth"), "wb") as f:
            torch.save(content, f)
        end = time.monotonic()
        self._next_save = end + max(SAVE_EVERY_S, _REST * (end - start))


def _data_hash(dataset: Any, parts: Sequence[DatasetEvaluator]) -> str:
    """Of the images, in their order, and of the ground truth's JSON."""
    # What is mapped, or else nothing: to ask another dataset for its items would decode all images.
    dicts = dataset._dataset if isinstance(dataset, MapDataset) else ()
    digest = hashlib.sha256(dataset_hash(dicts[i] for i in range(len(dicts))).encode())
    for part in parts:
        if isinstance(part, PanopticQualityEvaluator) and os.path.isfile(part.panoptic_json):
            digest.update(file_hash(part.panoptic_json).encode())
    return digest.hexdigest()


def _last_complete(folder: str, data: str) -> tuple[int, list[str]]:
    """The last attempt of which the files of all processes are there, and these, none of other data; 0 if there is
    none."""
    attempts: dict[int, list[str]] = {}
    for path in sorted(Path(folder).glob("attempt*.pth")):
        if match := _FILE.fullmatch(path.name):
            attempts.setdefault(int(match[1]), []).append(str(path))
    for number in sorted(attempts, reverse=True):
        content = read_weight_file(attempts[number][0])
        if content["processes"] != len(attempts[number]):
            continue
        if content.get("data") != data:
            logger.warning("The data are not those of the evaluation that was interrupted: it begins anew.")
            break
        return number, attempts[number]
    return max(attempts, default=0), []


def _accumulators(evaluator: DatasetEvaluator) -> tuple[str, ...] | None:
    """Attributes that gather; None of an evaluator that is not known."""
    if isinstance(evaluator, PanopticQualityEvaluator):
        return ()
    return next((_GATHERED[c.__name__] for c in type(evaluator).__mro__ if c.__name__ in _GATHERED), None)


def _state(evaluator: DatasetEvaluator) -> Any:
    if isinstance(evaluator, PanopticQualityEvaluator):
        return _encoded(evaluator.state_dict())
    names = [name for name in _accumulators(evaluator) or () if hasattr(evaluator, name)]
    return {name: _encoded(getattr(evaluator, name)) for name in names}


def _restore(evaluator: DatasetEvaluator, state: dict[str, Any]) -> None:
    """Add a saved state to what the evaluator has."""
    if isinstance(evaluator, PanopticQualityEvaluator):
        evaluator.add_state(_decoded(state))
        return
    for name, value in state.items():
        found = _decoded(value)
        setattr(evaluator, name, getattr(evaluator, name) + found if found is not None else None)


def _encoded(value: Any) -> Any:
    """Arrays and bytes as tensors, which are read without running anything."""
    if isinstance(value, bytes):
        return {"bytes": torch.frombuffer(bytearray(value or b" "), dtype=torch.uint8)[: len(value)].clone()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, ImageOverlaps):
        return {"overlaps": [torch.from_numpy(array.copy()) for array in value]}
    if isinstance(value, dict):
        return {key: _encoded(one) for key, one in value.items()}
    return [_encoded(one) for one in value] if isinstance(value, list) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict) and set(value) == {"overlaps"}:
        return ImageOverlaps(*(tensor.numpy() for tensor in value["overlaps"]))
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return value["bytes"].numpy().tobytes()
    if isinstance(value, dict):
        return {key: _decoded(one) for key, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value
