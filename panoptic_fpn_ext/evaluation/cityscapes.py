"""AP as Cityscapes defines it, by its own script, without the script's files: one PNG for each instance.

Shapes: P predicted instances, G ids in an image's ``instanceIds``.
"""

import copy
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ..cityscapes_labels import IGNORED, categories, label_of, read_instance_ids
from ..panoptic_map import run_starts, segment_index_map

__all__ = ["CityscapesInstanceEvaluator", "ImageOverlaps", "image_overlaps"]

logger = logging.getLogger(__name__)


class ImageOverlaps(NamedTuple):
    """All that AP needs of an image.

    ``ids``: int64 (G,), ascending. ``areas``: int64 (G,), px. ``labels``: int64 (P,), ids 24 … 33. ``scores``: float64
    (P,). ``overlaps``: int64 (P, G), px that a prediction shares with an id; a row's sum is the prediction's area.
    """

    ids: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    overlaps: npt.NDArray[np.int64]


def image_overlaps(
    instance_ids: npt.NDArray[np.integer], instances: Instances, label_ids: Sequence[int]
) -> ImageOverlaps:
    """Compare a prediction with the ground truth.

    Args:
        instance_ids: (H, W), of an ``instanceIds`` PNG.
        instances: ``pred_masks`` (bool (P, H, W)), ``pred_classes`` and ``scores``, on any device.
        label_ids: label of each contiguous thing id.

    Raises:
        ValueError: the masks have another size.
    """
    masks = instances.pred_masks.cpu().numpy().astype(bool)
    if masks.shape[1:] != instance_ids.shape:
        raise ValueError(f"the masks are {masks.shape[1:]}, the ground truth {instance_ids.shape} (height, width).")
    ids = np.unique(instance_ids.reshape(-1)[run_starts(instance_ids)])
    columns = segment_index_map(instance_ids, ids.tolist()).reshape(-1)  # 1 … G
    count = partial(np.bincount, minlength=len(ids) + 1)
    overlaps = np.array([count(columns[np.flatnonzero(mask)])[1:] for mask in masks], np.int64)
    labels = np.asarray(label_ids, np.int64)[instances.pred_classes.cpu().numpy()]
    scores = instances.scores.cpu().numpy().astype(np.float64)
    return ImageOverlaps(
        ids.astype(np.int64), count(columns)[1:], labels, scores, overlaps.reshape(len(masks), len(ids))
    )


class CityscapesInstanceEvaluator(DatasetEvaluator):
    """AP over the overlaps 0.5, 0.55 … 0.95 and AP50, in percent, of ``evalInstanceLevelSemanticLabeling``.

    Instances below 100 px, groups and ignored regions neither count nor make a prediction wrong. A class without
    instances is NaN and takes no part in the means. detectron2's evaluator of this name gives the same figures; it
    writes a PNG an instance, works on one machine only, needs NumPy < 2.4, as the script as a whole does, and
    since 2025 imports a module that only its authors have.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: its metadata have ``thing_classes`` and ``gt_dir``, as detectron2's Cityscapes has them too.

        Raises:
            ImportError: cityscapesscripts is not installed.
        """
        metadata = MetadataCatalog.get(dataset_name)
        known = {row["name"]: row["id"] for row in categories()}
        self._classes = list(metadata.thing_classes)
        self._label_ids = [known[name] for name in self._classes]
        self._gt_dir = metadata.gt_dir
        self._official = _official_script()
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: list[ImageOverlaps] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch: ``inputs`` give ``file_name``, ``outputs`` give ``instances`` at the image's size.

        Raises:
            ValueError: no ground truth for an image, a broken one, or one of another size.
        """
        for one_input, output in zip(inputs, outputs, strict=True):
            path = self._ground_truth(one_input["file_name"])
            try:
                overlaps = image_overlaps(read_instance_ids(path), output["instances"], self._label_ids)
            except ValueError as error:
                raise ValueError(f"Instance PNG {path}: {error}") from error
            self._images.append(overlaps)

    def _ground_truth(self, file_name: str) -> str:
        folder, name = os.path.split(file_name)
        image_id = name.removesuffix("_leftImg8bit.png")
        return os.path.join(self._gt_dir, os.path.basename(folder), f"{image_id}_gtFine_instanceIds.png")

    def evaluate(self) -> dict[str, Any] | None:
        """``{"segm": {"AP", "AP50", "AP-NAME" …}}`` on the main process, ``None`` elsewhere; to be called by all."""
        gathered = comm.gather(self._images)
        if not comm.is_main_process():
            return None
        names = dict(zip(self._label_ids, self._classes, strict=True))
        matches = {i: _official_matches(p, names) for i, p in enumerate(p for part in gathered for p in part)}
        precision = np.array([self._precisions(matches, name) for name in self._classes])  # classes × overlaps
        counted = ~np.isnan(precision[:, 0])
        ap, ap50 = (float(100 * p[counted].mean()) if counted.any() else np.nan for p in (precision, precision[:, 0]))
        results = {"AP": ap, "AP50": ap50}
        results |= {f"AP-{name}": float(100 * p.mean()) for name, p in zip(self._classes, precision, strict=True)}
        logger.info("Cityscapes instances: AP %.3f, AP50 %.3f", ap, ap50)
        return OrderedDict(segm=results)

    def _precisions(self, matches: dict[int, Any], name: str) -> list[float]:
        """AP of a class at each overlap, a fraction or NaN."""
        settings = copy.copy(self._official.args)
        settings.instLabels, settings.distanceAvailable = [name], False
        result = []
        for overlap in self._official.args.overlaps:
            settings.overlaps = [overlap]
            try:
                result.append(float(self._official.evaluateMatches(matches, settings).item()))
            except IndexError:  # where all predictions are ignored and no instance is found, the script has no curve
                result.append(0.0)
        return result


def _official_matches(image: ImageOverlaps, names: Mapping[int, str]) -> dict[str, dict[str, list[Any]]]:
    """What the script's `assignGt2Preds` makes of an image: matches know each other by copies with the overlap."""
    truth: dict[str, list[Any]] = {name: [] for name in names.values()}
    predicted: dict[str, list[Any]] = {name: [] for name in names.values()}
    columns: dict[int, list[int]] = {label: [] for label in names}
    for column, (id_, area) in enumerate(zip(image.ids.tolist(), image.areas.tolist(), strict=True)):
        if (label := label_of(id_)) in names:
            columns[label].append(column)
            truth[names[label]].append({**_instance(id_, area), "matchedPred": []})
    # As in the script: an ignored label's instances (29000, a caravan) are not among these, only the label itself.
    void = image.overlaps[:, np.isin(image.ids, list(IGNORED))].sum(axis=1).tolist()
    rows = zip(image.labels.tolist(), image.scores.tolist(), void, image.overlaps, strict=True)
    for label, score, void_area, overlaps in rows:
        prediction = {"pixelCount": int(overlaps.sum()), "confidence": score, "voidIntersection": void_area}
        if prediction["pixelCount"] == 0:
            continue
        matched = []
        for instance, column in zip(truth[names[label]], columns[label], strict=True):
            if shared := int(overlaps[column]):
                instance["matchedPred"].append({**prediction, "intersection": shared})
                matched.append({**_instance(instance["instID"], instance["pixelCount"]), "intersection": shared})
        predicted[names[label]].append({**prediction, "matchedGt": matched})
    return {"groundTruth": truth, "prediction": predicted}


def _instance(id_: int, area: int) -> dict[str, Any]:
    """An instance at an unknown distance."""
    return {"instID": id_, "pixelCount": area, "medDist": -1, "distConf": 0.0}


def _official_script() -> Any:
    try:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling
    except ImportError as error:
        raise ImportError(
            f"AP on Cityscapes is what cityscapesscripts computes, which cannot be imported ({error}): "
            "pip install cityscapesscripts"
        ) from error
    return evalInstanceLevelSemanticLabeling
