"""Does an exported file say what PyTorch says? The same images through both."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Agreement", "check_agreement", "check_images"]

LEAST_EQUAL = 0.9999
"""Of all pixels."""
_TIE = 1e-5

Image = npt.NDArray[np.uint8]
Predictor = Callable[[Image], dict[str, Any]]


@dataclass
class Agreement:
    """How far a file and PyTorch agree."""

    pixels: int = 0
    equal: int = 0
    images: int = 0
    same_segments: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether enough pixels and all segments are equal."""
        is_equal = self.equal >= LEAST_EQUAL * self.pixels and self.same_segments == self.images
        return is_equal and self.images > 0

    @property
    def median_seconds(self) -> float:
        """Of one image."""
        return statistics.median(self.seconds)


def check_agreement(
    images: Sequence[Image], reference: Predictor, files: Mapping[str, Predictor]
) -> tuple[dict[str, Agreement], float]:
    """Run all images through all predictors.

    Args:
        images: uint8 (H, W, 3) each, BGR.
        reference: the eager model's.
        files: predictors by name; images that one of them does not take are left out for it.

    Returns:
        The agreement of each with the reference, and the median seconds of the reference.
    """
    found = {name: Agreement() for name in files}
    seconds = []
    for image in images:
        (expected, infos), elapsed = _timed(reference, image)
        seconds.append(elapsed)
        for name, predictor in files.items():
            if not getattr(predictor, "takes", _takes_all)(image):
                continue
            (panoptic_seg, others), elapsed = _timed(predictor, image)
            one = found[name]
            one.seconds.append(elapsed)
            one.images += 1
            one.pixels += expected.numel()
            one.equal += int((_in_order_of(panoptic_seg, others, expected, infos) == expected).sum())
            one.same_segments += _same_segments(infos, others)
    return found, statistics.median(seconds)


def _takes_all(image: Image) -> bool:
    return True


def _timed(predictor: Predictor, image: Image) -> tuple[tuple[Any, list[dict[str, Any]]], float]:
    start = time.perf_counter()
    result = predictor(image)["panoptic_seg"]
    return result, time.perf_counter() - start


def _in_order_of(panoptic_seg: Any, infos: Sequence[Any], expected: Any, others: Sequence[Any]) -> Any:
    """A map with the ids of another, if things with tied scores have changed places; else as it is."""
    if _kinds(infos) == _kinds(others) or not _same_segments(others, infos):
        return panoptic_seg
    found = torch.zeros_like(panoptic_seg)
    for one in infos:
        mask = panoptic_seg == one["id"]
        areas = {other["id"]: int((expected[mask] == other["id"]).sum()) for other in others if _are_twins(one, other)}
        found[mask] = max(areas, key=lambda id_: areas[id_], default=0)
    return found


def _are_twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _kinds([one]) == _kinds([other]) and abs(one.get("score", 1.0) - other.get("score", 1.0)) < _TIE


def _kinds(segments: Sequence[Mapping[str, Any]]) -> list[tuple[bool, int]]:
    return [(s["isthing"], s["category_id"]) for s in segments]


def _same_segments(infos: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    """Same categories in the same order; things with tied scores may have changed places."""

    if _kinds(infos) == _kinds(others):
        return True
    scores = [s["score"] for s in infos if s["isthing"]]
    has_tie = any(a - b < _TIE for a, b in itertools.pairwise(scores))
    return has_tie and sorted(_kinds(infos)) == sorted(_kinds(others))


def check_images(photos: Sequence[Image] = ()) -> list[Image]:
    """What is checked where nobody names images: drawn streets of several sizes, a flat and a noisy image."""
    from ..data.street.scene import draw_street

    sizes = ((160, 256), (64, 64), (480, 640), (96, 800), (500, 240))
    drawn = [draw_street(0, 1, i, *size).image[:, :, ::-1].copy() for i, size in enumerate(sizes)]
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    return [*photos, *drawn, np.zeros((64, 64, 3), dtype=np.uint8), noise]
