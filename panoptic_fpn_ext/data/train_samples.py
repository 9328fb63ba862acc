"""Training samples as a function of a seed and their number: the same in any process, worker and run.

A sample's number counts through the whole training, over all processes. Which image it is, how it is augmented, and in
which batch it is depends on nothing else, so a training that was interrupted goes on with just the samples that an
undisturbed one would have seen next, with any number of workers and processes.
"""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ..structures import UnreadableFileError

__all__ = ["GlobalBatches", "Sample", "SampleDataset", "UnreadableSample", "refuse_unreadable", "seeded"]

Mapper = Callable[[dict[str, Any]], dict[str, Any] | None]

_NAMED = 10  # reasons in a message
_ATTEMPTS = 100  # images that are tried where one after the other cannot be used


class Sample(NamedTuple):
    """``number`` counts from 0 through the whole training; ``image`` is an index of the dataset."""

    number: int
    image: int


class UnreadableSample(NamedTuple):
    """An image that could not be read, and why."""

    sample: Sample
    reason: str


class GlobalBatches(Sampler[list[Sample]]):
    """The part of each batch that one process works on.

    The batches are those that one process alone would have; process r of R takes the r-th of R equal parts. As in
    detectron2, images of a batch may be grouped so that all are wide or all are tall.
    """

    def __init__(
        self,
        stream: Callable[[], Iterator[int]],
        batch_size: int,
        *,
        is_wide: Sequence[bool] | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """
        Args:
            stream: gives the endless row of dataset indices, the same one at every call and in all processes.
            batch_size: of all processes together, a multiple of ``world_size``.
            is_wide: by dataset index, to group by; None for batches in the order of the stream.
            start: the first batch to give; those before it are passed over.
            rank, world_size: r and R.
        """
        assert batch_size % world_size == 0, (batch_size, world_size)
        self._stream = stream
        self._batch_size = batch_size
        self._is_wide = is_wide
        self._start = start
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[list[Sample]]:
        share = self._batch_size // self._world_size
        for batch in itertools.islice(self._batches(), self._start, None):
            yield batch[self._rank * share : (self._rank + 1) * share]

    def _batches(self) -> Iterator[list[Sample]]:
        groups: dict[bool, list[Sample]] = {}
        for sample in itertools.starmap(Sample, enumerate(self._stream())):
            group = groups.setdefault(self._is_wide is not None and self._is_wide[sample.image], [])
            group.append(sample)
            if len(group) == self._batch_size:
                yield list(group)
                group.clear()


class SampleDataset(Dataset[dict[str, Any]]):
    """Maps samples, each with random numbers of its own.

    An image that cannot be read is replaced by another one, drawn by the sample's number; what was wrong is in the
    result's ``"unreadable"``, a list of :class:`UnreadableSample`. One that the mapper gives up on (None) is replaced
    without a word, as in detectron2.
    """

    def __init__(
        self, dicts: Sequence[dict[str, Any]], mapper: Mapper, seed: int, max_unreadable: int = _ATTEMPTS
    ) -> None:
        """
        Args:
            dicts: standard dicts, which the mapper may change: each access gives a new one.
            mapper: draws from the global generators of ``random``, NumPy and PyTorch.
            seed: of all samples.
            max_unreadable: different images that may be unreadable for one sample.
        """
        self._dicts = dicts
        self._mapper = mapper
        self._seed = seed
        self._max_unreadable = min(max_unreadable, len(dicts) - 1)

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, sample: Sample) -> dict[str, Any]:
        unreadable: list[UnreadableSample] = []
        for attempt in range(_ATTEMPTS):
            with seeded(self._seed, sample.number, attempt):
                try:
                    mapped = self._mapper(self._dicts[sample.image])
                except OSError as error:
                    unreadable.append(UnreadableSample(sample, str(error)))
                    refuse_unreadable({u.sample.image: u.reason for u in unreadable}, self._max_unreadable)
                    mapped = None
                if mapped is not None:
                    return {**mapped, "unreadable": unreadable} if unreadable else mapped
                sample = Sample(sample.number, random.randrange(len(self._dicts)))
        raise ValueError(f"{_ATTEMPTS} images in a row could not be used, the last one: {self._dicts[sample.image]}.")


def refuse_unreadable(reasons: Mapping[int, str], most: int) -> None:
    """Raise :class:`UnreadableFileError` if more images are unreadable than ``most``; ``reasons`` are by image."""
    if len(reasons) > most:
        some = " ".join(list(reasons.values())[:_NAMED])
        raise UnreadableFileError(f"{some} ({len(reasons)} of the images that were tried cannot be read.)")


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within it, the global generators of ``random``, NumPy and PyTorch's CPU start from ``numbers``; afterwards they
    are as before.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - what detectron2 draws from
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
