"""What a combiner is given of each image, at output size and on disk: a file an image, about 30 kB at 480 × 640 px.

Shapes: K instances in the combiner's order, H, W output size.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import Instances

from ..modeling.combiner import HeuristicCombiner
from ..modeling.postprocessing import label_free_pixels, paste_mask, place_instances
from ..structures import PanopticPrediction
from ..whole_files import whole_file

__all__ = ["CombinerInputs", "record", "stored_path"]


@dataclass(frozen=True, eq=False)
class CombinerInputs:
    """One image.

    ``labels``: (H, W), small unsigned or int16, semantic id of each pixel. ``scores`` float64 (K,), descending;
    ``classes`` int64 (K,), contiguous thing ids; ``windows`` int64 (K, 4), [top, bottom, left, right], exclusive;
    ``masks``: bool of each window's shape.
    """

    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    masks: list[npt.NDArray[np.bool_]]

    def save(self, path: str) -> None:
        """Write it, masks as bits, compressed, as a whole or not at all."""
        bits = np.packbits(np.concatenate([np.empty(0, np.bool_), *(mask.reshape(-1) for mask in self.masks)]))
        with whole_file(path, "wb") as f:
            np.savez_compressed(
                f, labels=self.labels, scores=self.scores, classes=self.classes, windows=self.windows, bits=bits
            )

    @classmethod
    def load(cls, path: str) -> "CombinerInputs":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in ("labels", "scores", "classes", "windows")}
                windows = columns["windows"]
                shapes = [(bottom - top, right - left) for top, bottom, left, right in windows.tolist()]
                sizes = [height * width for height, width in shapes]
                pixels = np.unpackbits(stored["bits"], count=sum(sizes)).view(np.bool_)
        except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error}). Delete it, and its image is inferred again.") from error
        parts = np.split(pixels, np.cumsum(sizes)[:-1].astype(np.intp)) if sizes else []
        return cls(**columns, masks=[part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


class _Recorder:
    """In place of a model's combiner: keeps what it is given, and predicts nothing."""

    def __init__(self, combiner: HeuristicCombiner, lowest_score: float) -> None:
        self._combiner = combiner
        self.instance_score_threshold = lowest_score
        self.taken: list[CombinerInputs] = []

    @torch.no_grad()
    def __call__(
        self,
        instances: Instances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> PanopticPrediction:
        combiner = self._combiner
        everywhere = torch.ones(output_size, dtype=torch.bool, device=sem_seg_logits.device)
        labels = label_free_pixels(sem_seg_logits, combiner.sem_seg_stride, image_size, everywhere)
        placed = place_instances(instances, output_size)
        placement = placed.placement
        order = torch.argsort(-torch.tensor(placement.scores, dtype=torch.float32)).tolist()
        kept = [k for k in order if placement.scores[k] >= self.instance_score_threshold]
        masks, windows = [], []
        for k in kept:
            row, (rows, columns) = placement.rows[k], placement.windows[k]
            mask = paste_mask(placed.pred_masks[row, 0], placement.boxes[row], (rows, columns), combiner.mask_threshold)
            masks.append(mask.cpu().numpy())
            windows.append((rows.start, rows.stop, columns.start, columns.stop))
        self.taken.append(
            CombinerInputs(
                labels=labels.cpu().numpy(),
                scores=np.array([placement.scores[k] for k in kept], np.float64),
                classes=np.array([placement.classes[k] for k in kept], np.int64),
                windows=np.array(windows, np.int64).reshape(-1, 4),
                masks=masks,
            )
        )
        return PanopticPrediction(torch.zeros(output_size, dtype=torch.int32), [])


def stored_path(folder: str, number: int) -> str:
    """File of an image, by its number in the dataset, from 0."""
    return os.path.join(folder, f"{number}.npz")


@torch.no_grad()
def record(
    model: Any, batches: Iterable[list[dict[str, Any]]], folder: str, lowest_score: float = 0.0, first: int = 0
) -> Iterator[tuple[Any, str]]:
    """Run a model once over a dataset and store what its combiner is given, image by image.

    Args:
        model: a panoptic model with a `HeuristicCombiner`, whose ``outputs`` have ``panoptic_seg``; it is as before
            when this ends.
        batches: of a test loader.
        folder: where the files go, those of :func:`stored_path`; made if need be.
        lowest_score: instances with lower scores are left out.
        first: number of the first image.

    Yields:
        ``image_id`` and path of each image.

    Raises:
        ValueError: the model has another combiner.
    """
    combiner = getattr(model, "combiner", None)
    if not isinstance(combiner, HeuristicCombiner):
        found = (
            f"a {type(model).__name__} has none: set TEST.AUG.ENABLED to False, or take a PanopticFPNExt"
            if combiner is None
            else f"the model's is a {type(combiner).__name__}: set MODEL.PANOPTIC_FPN.COMBINE.NAME to HeuristicCombiner"
        )
        raise ValueError(f"Thresholds are those of the HeuristicCombiner, and {found}.")
    os.makedirs(folder, exist_ok=True)
    outputs, number = model.outputs, first
    recorder = model.combiner = _Recorder(combiner, lowest_score)
    model.outputs = type(outputs)(["panoptic_seg"])
    try:
        for batch in batches:
            model(batch)
            for inputs, taken in zip(batch, recorder.taken, strict=True):
                path = stored_path(folder, number)
                taken.save(path)
                number += 1
                yield inputs["image_id"], path
            recorder.taken.clear()
    finally:
        model.combiner, model.outputs = combiner, outputs
