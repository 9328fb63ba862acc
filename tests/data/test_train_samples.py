"""Which samples a training sees, and how they are augmented, depends on the seed and their number alone."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from panoptic_fpn_ext.data.train_samples import GlobalBatches, Sample, SampleDataset, seeded
from panoptic_fpn_ext.structures import UnreadableFileError

IS_WIDE = [True, False, True, True, False, True, False]


def _stream():
    generator = torch.Generator().manual_seed(3)
    while True:
        yield from torch.randperm(len(IS_WIDE), generator=generator).tolist()


def _obvious_batches(count: int, batch_size: int, is_wide: list[bool] | None) -> list[list[Sample]]:
    """All samples in a row, sorted into two heaps by hand."""
    heaps: tuple[list[Sample], list[Sample]] = ([], [])
    batches = []
    for number, index in enumerate(itertools.islice(_stream(), 1000)):
        heap = heaps[is_wide[index] if is_wide else 0]
        heap.append(Sample(number, index))
        if len(heap) == batch_size:
            batches.append(heap[:])
            del heap[:]
    return batches[:count]


@pytest.mark.parametrize("is_wide", [None, IS_WIDE])
@pytest.mark.parametrize("world_sizes", [(1,), (2,), (1, 2, 1), (4, 1, 2)])
def test_no_sample_is_lost_or_doubled_when_processes_come_and_go(is_wide, world_sizes):
    expected = _obvious_batches(12, 4, is_wide)
    found = []
    for part, world_size in enumerate(world_sizes):
        length = 12 // len(world_sizes)
        shares = [
            list(
                itertools.islice(
                    GlobalBatches(_stream, 4, is_wide=is_wide, start=part * length, rank=r, world_size=world_size),
                    length,
                )
            )
            for r in range(world_size)
        ]
        found += [list(itertools.chain(*share)) for share in zip(*shares, strict=True)]
    assert found == expected
    if is_wide:
        assert all(len({is_wide[sample.image] for sample in batch}) == 1 for batch in found)


def _draws(row: dict) -> dict:
    numbers = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002
    return {**row, "draws": numbers}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_draws_are_the_same_with_any_number_of_workers(num_workers):
    dataset = SampleDataset([{"i": i} for i in range(7)], _draws, seed=5)

    def batches(workers: int) -> list:
        loader = DataLoader(
            dataset, batch_sampler=GlobalBatches(_stream, 3), num_workers=workers, collate_fn=lambda batch: batch
        )
        return list(itertools.islice(loader, 5))

    alone = batches(0)
    assert batches(num_workers) == alone
    rows = [tuple(row["draws"]) for batch in alone for row in batch]
    assert len(set(rows)) == len(rows)  # a repeated image is augmented anew


def test_the_global_generators_stay_as_they_are():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    first = _draws({})
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    with seeded(3, 4):
        inside = _draws({})
    assert _draws({}) == first and inside != first
    with seeded(3, 4):
        assert _draws({}) == inside
    with seeded(3, 5):
        assert _draws({}) != inside


def test_an_unreadable_image_is_replaced_and_named():
    def mapper(row: dict) -> dict | None:
        if row["i"] == 2:
            raise OSError("image 2 is broken")
        return None if row["i"] == 3 else row

    dataset = SampleDataset([{"i": i} for i in range(5)], mapper, seed=5)
    found = dataset[Sample(9, 2)]
    assert found["i"] in (0, 1, 4) and found["unreadable"] == [(Sample(9, 2), "image 2 is broken")]
    assert dataset[Sample(9, 2)] == found
    replaced = {dataset[Sample(number, 3)]["i"] for number in range(40)}
    assert replaced == {0, 1, 4}
    with pytest.raises(UnreadableFileError, match="image 2 is broken"):
        SampleDataset([{"i": 2}], mapper, seed=5)[Sample(0, 0)]
    with pytest.raises(UnreadableFileError, match="2 of the images"):
        SampleDataset([{"i": 2}, {"i": 2}, {"i": 0}], mapper, seed=5, max_unreadable=1)[Sample(0, 0)]
    with pytest.raises(ValueError, match="in a row"):
        SampleDataset([{"i": 3}], mapper, seed=5)[Sample(0, 0)]
