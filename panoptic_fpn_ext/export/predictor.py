"""An exported file in place of a model and its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from torch import nn

from ..data.image_predictor import ImagePredictor
from ..data.nonempty import NonemptyResizeShortestEdge
from ..data.panoptic_catalog import COCO_PANOPTIC, class_metadata
from ..image_files import to_input_format
from ..modeling.postprocessing import postprocess_instances, upsample_sem_seg_logits
from ..structures import SegmentInfo
from .combine import Thresholds
from .description import categories_of
from .runtimes import Outputs, open_session, threshold_inputs

__all__ = ["ExportedModel", "ExportedPredictor"]


class ExportedFile:
    """A file and what makes detectron2's outputs of its own.

    Attributes:
        description: all that the file says of itself, see :func:`~panoptic_fpn_ext.export.description.describe`.
    """

    def __init__(self, path: str | Path, threads: int, thresholds: Mapping[str, float] | None, precision: str) -> None:
        """Arguments and errors as those of :class:`ExportedPredictor`."""
        self.session, self.description = open_session(path, threads, precision)
        self.set_thresholds(thresholds or {})
        self._category_ids = {row["id"]: row["category_id"] for row in self.description["categories"]}

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None:
        """Predict with these, and with the file's own where one is not given."""
        unknown = set(thresholds).difference(Thresholds._fields)
        if unknown:
            raise ValueError(f"Thresholds of an exported model are {Thresholds._fields}, got {sorted(unknown)}.")
        self._thresholds = threshold_inputs({**self.description["thresholds"], **thresholds})

    def predict(self, image: npt.NDArray[np.uint8], output_size: tuple[int, int]) -> dict[str, Any]:
        """Outputs at ``output_size`` of an image in the file's channel order, resized unless the file does it."""
        inputs = {"image": np.ascontiguousarray(image), **self._thresholds}
        if not self.description["resizes"]:
            inputs["output_size"] = np.array(output_size, dtype=np.int64)
        found = self.session(inputs)
        result: dict[str, Any] = {"panoptic_seg": (torch.from_numpy(found["panoptic_seg"]), self._segments_info(found))}
        if "instances" in self.description["outputs"]:
            result["instances"] = self._instances(found, output_size)
        if "sem_seg" in self.description["outputs"]:
            logits = torch.from_numpy(found["sem_seg_logits"])
            height, width = found["network_input_size"].tolist()
            stride = self.description["sem_seg_stride"]
            result["sem_seg"] = upsample_sem_seg_logits(logits, stride, (height, width), output_size)
        return result

    def _segments_info(self, found: Outputs) -> list[SegmentInfo]:
        names = ("segment_id", "category_id", "isthing", "score", "area")
        infos = []
        for id_, category, isthing, score, area in zip(*(found[name].tolist() for name in names), strict=True):
            info = SegmentInfo(id=id_, category_id=self._category_ids[category], isthing=isthing, area=area)
            if isthing:
                info["score"] = score
            infos.append(info)
        return infos

    def _instances(self, found: Outputs, output_size: tuple[int, int]) -> Instances:
        classes = [self._category_ids[category] for category in found["instance_category_id"].tolist()]
        raw = Instances(
            output_size,
            pred_boxes=Boxes(torch.from_numpy(found["instance_box"])),
            scores=torch.from_numpy(found["instance_score"]),
            pred_classes=torch.tensor(classes, dtype=torch.int64),
            pred_masks=torch.from_numpy(found["instance_mask"])[:, None],
        )
        return postprocess_instances(raw, output_size, self.description["mask_threshold"])


class ExportedPredictor(ImagePredictor):
    """:class:`~panoptic_fpn_ext.engine.PanopticPredictor`, with another runtime than PyTorch.

    It takes the same images and gives the same outputs, as far as the file has them; each segment has its ``area`` too,
    and things lack ``instance_id``.

    Attributes:
        metadata: names and colours of the classes, from the file.
        description: all that the file says of itself, see :func:`~panoptic_fpn_ext.export.description.describe`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        thresholds: Mapping[str, float] | None = None,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            path, threads, precision: see :func:`~panoptic_fpn_ext.export.runtimes.open_session`, which has the errors
                too.
            thresholds: ``instance_score_threshold``, ``overlap_threshold`` and ``stuff_area_threshold`` in place of the
                file's, as `HeuristicCombiner` has them.

        Raises:
            ValueError: other thresholds.
        """
        self._file = ExportedFile(path, threads, thresholds, precision)
        self.description = self._file.description
        categories = categories_of(self.description)
        self.metadata = Metadata(name=str(path)).set(**class_metadata(categories, COCO_PANOPTIC))
        shortest, longest = self.description["resize"]
        self._resize = None if self.description["resizes"] else NonemptyResizeShortestEdge([shortest] * 2, longest)

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None:
        """Predict with other ``thresholds`` from now on; those that are not given are the file's."""
        self._file.set_thresholds(thresholds)

    def takes(self, image: npt.NDArray[np.uint8]) -> bool:
        """Whether an image is not too narrow for the file; only programs of `torch.export` mind."""
        if self._resize is None or "least_side" not in self.description:
            return True
        transform: Any = self._resize.get_transform(image)
        height, width = image.shape[:2]
        sides: list[Any] = [getattr(transform, "new_h", height), getattr(transform, "new_w", width)]
        divisor = self.description["divisor"]
        return all(-(-side // divisor) * divisor >= self.description["least_side"] for side in sides)

    def _predict(self, image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        size = (image.shape[0], image.shape[1])
        image = to_input_format(image, self.description["input_format"])
        if self._resize is not None:
            image = self._resize.get_transform(image).apply_image(image)
        return self._file.predict(image, size)


class ExportedModel(nn.Module):
    """An exported file with the interface of a detectron2 model in evaluation, for evaluators.

    Attributes:
        description: as that of :class:`ExportedPredictor`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        thresholds: Mapping[str, float] | None = None,
        precision: str = "float32",
    ) -> None:
        """Arguments and errors as those of :class:`ExportedPredictor`."""
        super().__init__()
        self._file = ExportedFile(path, threads, thresholds, precision)
        self.description = self._file.description

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Args:
            batched_inputs: one dict an image with ``image``, uint8 (3, h, w) in the file's channel order, not resized
                where the file resizes, and ``height`` and ``width`` of the output.

        Returns:
            One dict an image with the file's outputs, in detectron2's format.
        """
        return [self._predict_one(inputs) for inputs in batched_inputs]

    def _predict_one(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image = inputs["image"].permute(1, 2, 0).numpy()
        size = (int(inputs.get("height", image.shape[0])), int(inputs.get("width", image.shape[1])))
        if self.description["resizes"] and size != image.shape[:2]:
            raise ValueError(
                f"An exported model that resizes images predicts them at their own size, {image.shape[:2]}, but the "
                f"output is to be {size} ({inputs.get('file_name', 'no file name')})."
            )
        return self._file.predict(image, size)
