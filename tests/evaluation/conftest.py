"""Fixtures of the tests of the evaluator of PQ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from evaluator_batches import TABLE
from oracles_pq import Image, random_image


@pytest.fixture
def dataset() -> Iterator[Callable[..., str]]:
    """Registers ground truth on disk; the dataset is forgotten after the test."""
    names = []

    def register(gt_json: Path, **metadata: Any) -> str:
        names.append(f"panoptic_quality_{len(names)}")
        entry = {**TABLE.metadata(), "panoptic_json": str(gt_json), "panoptic_root": str(gt_json.with_suffix(""))}
        MetadataCatalog.get(names[-1]).set(**{**entry, **metadata})
        return names[-1]

    yield register
    for name in names:
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """Twenty random ones, with predictions."""
    rng = np.random.default_rng(5)
    return [random_image(rng) for _ in range(20)]
