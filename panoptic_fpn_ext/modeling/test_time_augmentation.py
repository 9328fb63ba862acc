"""Panoptic FPN with test-time augmentation: one image seen at several sizes and mirrored, one prediction.

A view is a resized, perhaps mirrored, copy of the image. Shapes: K detections, M mask side, C semantic classes, h, w
logits of a view, H, W the grid on which the views' probabilities meet.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import HFlipTransform, NoOpTransform, ResizeTransform, TransformList
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import nn
from torch.nn import functional as F

from ..image_files import read_image
from .panoptic_fpn import PanopticFPNExt
from .postprocessing import label_pixels, postprocess_instances, sem_seg_logits_of_rows, upsample_sem_seg_logits
from .sem_seg_head import logits_stride
from .test_time_views import Views

__all__ = ["PanopticFPNWithTTA"]

Mapper = Callable[[Mapping[str, Any]], Iterable[dict[str, Any]]]

_STRIP_LOGITS = 2**21
_UNDONE = (HFlipTransform, NoOpTransform, ResizeTransform)


class _Semantics(NamedTuple):
    """Of one view: logits float (C, h, w), padding included; its (height, width) without padding; how it looks."""

    logits: torch.Tensor
    image_size: tuple[int, int]
    mirrored: bool


class PanopticFPNWithTTA(nn.Module):
    """A :class:`~panoptic_fpn_ext.modeling.PanopticFPNExt` that sees each image in several views; called as the model.

    As detectron2's `GeneralizedRCNNWithTTA` does it, the boxes of all views go through one suppression, and the masks
    of what is left are averaged over the views. Semantic probabilities are averaged, pixel by pixel, once each view is
    brought back to the image. Only then instances and semantics are combined, once.

    One view is in memory at a time, so all views take little more than the largest one alone; for that, each is seen
    twice, once for the boxes and once for the rest. Where equal scores compete, as those of both halves of a symmetric
    image do, the box is their mean; detectron2 keeps the first.
    """

    @configurable
    def __init__(self, *, model: nn.Module, tta_mapper: Mapper, image_format: str = "BGR") -> None:
        """From a config: ``PanopticFPNWithTTA(cfg, model)``.

        Args:
            model: a trained `PanopticFPNExt` or a class derived from it; of ``DistributedDataParallel`` what it wraps.
            tta_mapper: gives the views of an image, as :class:`Views` or detectron2's `DatasetMapperTTA` do; only
                resizes and horizontal flips.
            image_format: in which the model takes images, for those that are given as files, as detectron2's
                `read_image` takes it.

        Raises:
            ValueError: another kind of model.
        """
        super().__init__()
        model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        if not isinstance(model, PanopticFPNExt):
            raise ValueError(f"PanopticFPNWithTTA needs a PanopticFPNExt, got a {type(model).__name__}.")
        if not hasattr(model.combiner, "sem_seg_stride"):
            name = type(model.combiner).__name__
            raise ValueError(f"PanopticFPNWithTTA needs a combiner with a `sem_seg_stride`, and {name} has none.")
        self.model = model
        self.tta_mapper = tta_mapper
        self.image_format = image_format
        self.training = model.training  # what an evaluation restores at its end

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module, tta_mapper: Mapper | None = None) -> dict[str, Any]:
        """Arguments from a config, which gives the views, and a model."""
        return {"model": model, "tta_mapper": tta_mapper or Views(cfg), "image_format": cfg.INPUT.FORMAT}

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As the model's, in inference. ``image`` is best given at its own size: it is resized for each view. Without
        it, as with `GeneralizedRCNNWithTTA`, the file that ``file_name`` names is read.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: an input has neither, or the file is no image.
        """
        return [self._predict(self._with_image(inputs)) for inputs in batched_inputs]

    def _with_image(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if "image" in inputs:
            return inputs
        if "file_name" not in inputs:
            raise ValueError(f"PanopticFPNWithTTA needs an `image` or a `file_name`, got {sorted(inputs)}.")
        image = read_image(inputs["file_name"], self.image_format)
        return {**inputs, "image": torch.from_numpy(image.transpose(2, 0, 1).copy())}

    def _predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        height, width = inputs["image"].shape[1:]
        output_size = int(inputs.get("height", height)), int(inputs.get("width", width))
        inputs = {**inputs, "height": output_size[0], "width": output_size[1]}
        if (view := self._only_view(inputs)) is not None:
            output: dict[str, Any] = self.model.inference([_plain(view)])[0]
            return output
        instances = self._detect(inputs, output_size)
        masks: torch.Tensor | None = None
        seen: list[_Semantics] = []
        for view in self._views(inputs):
            view_masks, semantics = self._look_at(view, instances)
            masks = view_masks if masks is None else masks.add_(view_masks)
            seen.append(semantics)
        assert masks is not None
        instances.pred_masks = masks.div_(len(seen))
        return self._postprocess(instances, seen, inputs["image"], output_size)

    def _only_view(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The view of which the model's own result is the average: the only one, not mirrored. None otherwise."""
        views = list(itertools.islice(self._views(inputs), 2))
        return views[0] if len(views) == 1 and not _is_mirrored(views[0]) else None

    def _views(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for view in self.tta_mapper(inputs):
            if unknown := [t for t in view["transforms"].transforms if not isinstance(t, _UNDONE)]:
                raise ValueError(f"PanopticFPNWithTTA can undo resizes and horizontal flips, not {unknown[0]}.")
            yield view

    def _detect(self, inputs: Mapping[str, Any], output_size: tuple[int, int]) -> Instances:
        """Detections of all views in output pixels, without masks."""
        found: list[Instances] = []
        with _without_masks(self.model.roi_heads):
            for view in self._views(inputs) if self.model.outputs & {"instances", "panoptic_seg"} else ():
                (detected,) = self.model.inference([_plain(view)], do_postprocess=False)
                found.append(_moved(detected, view["transforms"].inverse(), output_size))
        if not found:
            none = torch.zeros(0, device=self.model.device)
            fields = {"pred_boxes": Boxes(none.view(0, 4)), "scores": none, "pred_classes": none.long()}
            return Instances(output_size, **fields)
        union = Instances.cat(found)
        union.pred_boxes.clip(output_size)
        return self._merge(union[union.pred_boxes.nonempty()], output_size)

    def _merge(self, found: Instances, output_size: tuple[int, int]) -> Instances:
        """One suppression over the detections of all views."""
        predictor = self.model.roi_heads.box_predictor
        predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # the last stage of a cascade
        boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
        by_class = scores.new_zeros(len(found), self.model.roi_heads.num_classes + 1)
        by_class[torch.arange(len(found), device=scores.device), classes] = scores
        threshold = predictor.test_nms_thresh
        kept, _ = fast_rcnn_inference_single_image(
            boxes, by_class, output_size, 1e-8, threshold, predictor.test_topk_per_image
        )
        overlap = pairwise_iou(kept.pred_boxes, found.pred_boxes) > threshold
        equal = (kept.scores[:, None] == scores) & (kept.pred_classes[:, None] == classes) & overlap
        alone = equal.sum(dim=1, keepdim=True) <= 1
        mean = equal.to(boxes) @ boxes / equal.sum(dim=1, keepdim=True).clamp(min=1)
        kept.pred_boxes = Boxes(torch.where(alone, kept.pred_boxes.tensor, mean))
        return kept

    def _look_at(self, view: dict[str, Any], instances: Instances) -> tuple[torch.Tensor, _Semantics]:
        """Masks of known detections, float (K, 1, M, M), and the semantics of a view."""
        size = (view["image"].shape[1], view["image"].shape[2])
        raw = self.model.raw_outputs([_plain(view)], [_moved(instances, view["transforms"], size)])
        masks, mirrored = raw.instances[0].pred_masks.float(), _is_mirrored(view)
        return masks.flip(dims=[3]) if mirrored else masks, _Semantics(raw.sem_seg_logits[0], size, mirrored)

    def _postprocess(
        self, instances: Instances, seen: Sequence[_Semantics], image: torch.Tensor, output_size: tuple[int, int]
    ) -> dict[str, Any]:
        """The outputs that the model gives, from averages."""
        outputs, result = self.model.outputs, {}
        if "instances" in outputs:
            result["instances"] = postprocess_instances(instances, output_size)
        if outputs == {"instances"}:
            return result
        # The grid has no more pixels than the network has seen: the output may be a photograph of many megapixels.
        grid = min(output_size, max((view.image_size for view in seen), key=math.prod), key=math.prod)
        logits = _averaged(seen, logits_stride(self.model.sem_seg_head), grid)
        if "sem_seg" in outputs:
            same = grid == output_size
            result["sem_seg"] = logits if same else upsample_sem_seg_logits(logits, 1, grid, output_size)
        if "sem_seg_labels" in outputs:
            result["sem_seg_labels"] = label_pixels(logits, 1, grid, output_size)
        if "panoptic_seg" in outputs:
            combiner: Any = copy.copy(self.model.combiner)
            combiner.sem_seg_stride = 1
            seen_too = {"image": _resized(image, grid)} if getattr(combiner, "needs_image", False) else {}
            prediction = combiner(_scaled(instances, grid), logits, grid, output_size, **seen_too)
            result["panoptic_seg"] = (prediction.panoptic_seg, prediction.segments_info)
        return result


def _averaged(seen: Sequence[_Semantics], stride: int, grid: tuple[int, int]) -> torch.Tensor:
    """Logarithm of the mean probabilities on a grid of (H, W), float32 (C, H, W); labels are those of logits.

    Rows are made some at a time, classes last in memory: so there is one map of that size and no second one.
    """
    num_classes = len(seen[0].logits)
    mean = seen[0].logits.new_zeros((*grid, num_classes), dtype=torch.float32)
    step = max(1, _STRIP_LOGITS // (num_classes * grid[1]))
    for start in range(0, grid[0], step):
        rows = slice(start, min(start + step, grid[0]))
        for view in seen:
            logits = sem_seg_logits_of_rows(view.logits, stride, view.image_size, grid, rows)
            probs = logits.softmax(dim=0).permute(1, 2, 0)
            mean[rows] += probs.flip(dims=[1]) if view.mirrored else probs
    mean.div_(len(seen)).clamp_(min=torch.finfo(torch.float32).tiny).log_()
    return mean.permute(2, 0, 1)


def _plain(view: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in view.items() if key != "transforms"}


def _is_mirrored(view: Mapping[str, Any]) -> bool:
    return sum(isinstance(t, HFlipTransform) for t in view["transforms"].transforms) % 2 == 1


def _moved(instances: Instances, transforms: TransformList, size: tuple[int, int]) -> Instances:
    """Boxes through transforms, with classes and scores; size (height, width) of the image where they then are."""
    boxes = instances.pred_boxes.tensor
    moved = torch.from_numpy(transforms.apply_box(boxes.cpu().numpy())).to(boxes)
    return Instances(size, pred_boxes=Boxes(moved), scores=instances.scores, pred_classes=instances.pred_classes)


def _scaled(instances: Instances, size: tuple[int, int]) -> Instances:
    """Detections as of a network input of this (height, width)."""
    boxes = instances.pred_boxes.clone()
    boxes.scale(size[1] / instances.image_size[1], size[0] / instances.image_size[0])
    return Instances(size, **{**instances.get_fields(), "pred_boxes": boxes})


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """An image (3, h, w) of any type as float (3, H, W)."""
    return F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)[0]


@contextmanager
def _without_masks(roi_heads: Any) -> Iterator[None]:
    """The mask branch is off for a while, as `GeneralizedRCNNWithTTA` has it."""
    former = roi_heads.mask_on
    roi_heads.mask_on = False
    try:
        yield
    finally:
        roi_heads.mask_on = former
