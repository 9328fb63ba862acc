"""The training loader: batches that depend on the seed and the iteration alone."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

from ..structures import UnreadableFileError
from .train_samples import GlobalBatches, Mapper, SampleDataset, UnreadableSample, refuse_unreadable

__all__ = ["TrainLoader", "dataset_hash"]

logger = logging.getLogger(__name__)


class TrainLoader:
    """Endless batches (lists of dicts) of this process, as `build_detection_train_loader` gives them, but from
    iteration ``start_iter`` on the same ones in every run with the same ``seed``, whatever the number of workers and
    processes. Both may be set until the first batch is asked for.
    """

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        mapper: Mapper,
        *,
        total_batch_size: int,
        sampler: Sampler[int] | Callable[[int], Sampler[int]] | None = None,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
        seed: int | None = None,
        max_unreadable: int = 10,
    ) -> None:
        """
        Args:
            dataset: detectron2's standard dicts.
            mapper: from such a dict to what the model takes.
            total_batch_size: of all processes together.
            sampler: one of detectron2's training samplers, or what makes one of a seed; by default all images in random
                order, again and again.
            aspect_ratio_grouping: whether the images of a batch are all wide or all tall.
            num_workers: processes that load, 0 for none.
            seed: of samples and augmentations; by default a random one, the same in all processes.
            max_unreadable: different images that may turn out to be unreadable before the training stops; others are
                taken in their place.

        Raises:
            ValueError: no images, or a batch size that the processes cannot share evenly.
        """
        if not len(dataset):
            raise ValueError("There is no image to train on.")
        processes = comm.get_world_size()
        if total_batch_size < 1 or total_batch_size % processes:
            raise ValueError(
                "SOLVER.IMS_PER_BATCH (in a LazyConfig dataloader.train.total_batch_size) must be a multiple of the "
                f"number of processes, {processes}, got {total_batch_size}: "
                f"take {-(-max(total_batch_size, 1) // processes) * processes}."
            )
        self.identity = {"images": len(dataset), "dataset": dataset_hash(dataset), "batch_size": total_batch_size}
        """What the order of samples depends on beside the seed."""
        self._dicts = DatasetFromList(dataset, copy=False)
        self._mapper = mapper
        self._batch_size = total_batch_size
        self._sampler = sampler
        self._is_wide = [d["width"] > d["height"] for d in dataset] if aspect_ratio_grouping else None
        self._num_workers = num_workers
        self._max_unreadable = max_unreadable
        self._unreadable: dict[int, str] = {}
        self.seed = comm.shared_random_seed() if seed is None else seed
        self.start_iter = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = GlobalBatches(
            self._stream,
            self._batch_size,
            is_wide=self._is_wide,
            start=self.start_iter,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )
        loader = DataLoader(
            SampleDataset(self._dicts, self._mapper, self.seed, self._max_unreadable),
            batch_sampler=batches,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # PyTorch draws a seed for the workers: not from the global generator
        )
        for batch in loader:
            self._note_unreadable([found for d in batch for found in d.pop("unreadable", ())])
            yield batch

    def _stream(self) -> Iterator[int]:
        sampler: Any = self._sampler(self.seed) if callable(self._sampler) else self._sampler
        if sampler is None:
            sampler = TrainingSampler(len(self._dicts), seed=self.seed)
        if not hasattr(sampler, "_infinite_indices"):
            raise ValueError(
                f"{type(sampler).__name__} is none of detectron2's training samplers, whose order can be found again "
                "after an interruption. Use detectron2's build_detection_train_loader with it."
            )
        stream: Iterator[int] = sampler._infinite_indices()
        return stream

    def _note_unreadable(self, found: Sequence[UnreadableSample]) -> None:
        for sample, reason in found:
            if sample.image not in self._unreadable:
                logger.warning(f"{reason} Another image is taken in its place (sample {sample.number}).")
            self._unreadable[sample.image] = reason
        try:
            refuse_unreadable(self._unreadable, self._max_unreadable)
        except UnreadableFileError as error:
            bound = f"DATALOADER.MAX_UNREADABLE_IMAGES allows {self._max_unreadable}"
            raise UnreadableFileError(f"{error} {bound}; repair or remove these files.") from None


def dataset_hash(dataset: Iterable[dict[str, Any]]) -> str:
    """Of which images there are, in which order, with how many segments; folders may be others on another machine."""
    digest = hashlib.sha256()
    for one in dataset:
        segments = len(one.get("segments_info", one.get("annotations", ())))
        name, size = os.path.basename(one.get("file_name", "")), (one.get("height"), one.get("width"))
        digest.update(repr((name, one.get("image_id"), size, segments)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _as_it_is(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return batch
