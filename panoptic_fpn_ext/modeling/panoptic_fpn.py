"""Panoptic FPN: one network, an FPN shared by Mask R-CNN and a semantic branch.

Shapes: N images, C semantic classes, h, w network input, H, W output.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_sem_seg_head
from detectron2.structures import ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.logger import log_first_n
from torch import nn

from ..structures import RawOutputs
from .backbone.training import checkpoint_activations, normalize_in_place
from .box_branch import detect_with_masks_above
from .combiner import build_panoptic_combiner
from .combiner.build import PanopticCombiner
from .global_average import average_over_processes, count_rois
from .postprocessing import postprocess_instances, upsample_sem_seg_logits
from .sem_seg_head import PanopticFPNSemSegHead

__all__ = ["OUTPUTS", "PanopticFPNExt"]

OUTPUTS = ("panoptic_seg", "instances", "sem_seg")
"""What a model can return of a picture."""

_INSTANCE_LOSSES = ("loss_cls", "loss_box_reg", "loss_mask")


@META_ARCH_REGISTRY.register()
class PanopticFPNExt(GeneralizedRCNN):
    """Panoptic FPN (Kirillov et al., CVPR 2019) with detectron2's interfaces, names and output formats.

    It takes any config of detectron2's `PanopticFPN` and its checkpoints. Where the two differ:

    * ``MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT`` is the paper's λ_i: it scales the classification, box and mask
      losses (section 5), with any box head. detectron2 leaves the classification loss out and fails with
      `CascadeROIHeads`.
    * Losses of several processes are averages over the pixels, RoIs and masks of all of them, as if one process had
      the whole batch. detectron2 averages the averages of the processes.
    * A batch without a labelled pixel has a semantic loss of 0, not NaN.
    * ``inference`` has the signature of `GeneralizedRCNN`, so `GeneralizedRCNNWithTTA` works.
    * No segment without a pixel is listed (detectron2 lists them when ``STUFF_AREA_LIMIT`` is 0).
    """

    sem_seg_head: Any  # nn.Module says that every attribute may be a tensor

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combiner: PanopticCombiner,
        instance_loss_weight: float = 1.0,
        outputs: Sequence[str] = OUTPUTS,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: a semantic head of detectron2's registry.
            combiner: merges the raw outputs of one picture.
            instance_loss_weight: λ_i of the paper.
            outputs: those of ``OUTPUTS`` that inference returns; only what they need is computed.
            kwargs: arguments of `GeneralizedRCNN`.

        Raises:
            ValueError: no output, or an unknown one.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combiner = combiner
        self.instance_loss_weight = instance_loss_weight
        self.outputs = frozenset(outputs)
        if not self.outputs or not self.outputs.issubset(OUTPUTS):
            raise ValueError(f"MODEL.PANOPTIC_FPN.OUTPUTS must name some of {list(OUTPUTS)}, got {list(outputs)}.")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a config of detectron2's `PanopticFPN`, with or without this package's keys.

        Raises:
            ValueError: ``MODEL.MASK_ON`` is off.
        """
        if not cfg.MODEL.MASK_ON:
            raise ValueError("PanopticFPNExt needs instance masks: set MODEL.MASK_ON to True.")
        ret: dict[str, Any] = super().from_config(cfg)
        normalize_in_place(ret["backbone"])
        if cfg.MODEL.BACKBONE.get("CHECKPOINT_ACTIVATIONS", False):
            checkpoint_activations(ret["backbone"])
        input_shape = ret["backbone"].output_shape()
        if cfg.MODEL.SEM_SEG_HEAD.NAME == "SemSegFPNHead":  # detectron2's default; ours has the same parameters
            sem_seg_head: nn.Module = PanopticFPNSemSegHead(cfg, input_shape)
        else:
            sem_seg_head = build_sem_seg_head(cfg, input_shape)
        ret["sem_seg_head"] = sem_seg_head
        ret["combiner"] = build_panoptic_combiner(cfg, sem_seg_stride=_logits_stride(sem_seg_head))
        ret["instance_loss_weight"] = cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT
        ret["outputs"] = cfg.MODEL.PANOPTIC_FPN.get("OUTPUTS", OUTPUTS)
        return ret

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """
        Args:
            batched_inputs: one dict a picture with ``image`` (float or uint8 (3, h, w)). Training also needs
                ``sem_seg`` (int64 (h, w)) and ``instances``; in inference ``height`` and ``width`` give the output
                size.

        Returns:
            In training a dict of scalar losses: ``loss_sem_seg``, ``loss_rpn_cls``, ``loss_rpn_loc``, ``loss_cls``,
            ``loss_box_reg``, ``loss_mask``. In inference one dict a picture with those of ``outputs``, in detectron2's
            format: ``panoptic_seg``, a pair of int32 (H, W) and a list of segments; ``instances``; ``sem_seg``, float
            (C, H, W) logits.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        gt_instances = self._gt_instances(batched_inputs)
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        sampled, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        # Last, so that its backward pass comes first and its memory is free before the other heads need more.
        sem_seg_targets = self._sem_seg_targets(batched_inputs, images)
        _, losses = self.sem_seg_head(features, sem_seg_targets)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        losses = {**losses, **proposal_losses, **self._weighted(detector_losses)}
        if comm.get_world_size() == 1:
            return losses
        return average_over_processes(losses, self._loss_counts(sem_seg_targets, sampled))

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """
        Args:
            batched_inputs: as in :meth:`forward`.
            detected_instances: boxes and classes that are known already, as in `GeneralizedRCNN.inference`.
            do_postprocess: whether to bring the outputs to output size and combine them.

        Returns:
            As :meth:`forward` or, without post-processing, raw `Instances` as `GeneralizedRCNN.inference` gives
            them. For raw semantics too, see :meth:`raw_outputs`.
        """
        assert not self.training
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if not do_postprocess:
            return self._detect(images, features, batched_inputs, detected_instances)
        instances: Sequence[Any] = [None] * len(batched_inputs)
        logits: Any = instances
        if self.outputs != {"sem_seg"}:
            instances = self._detect(images, features, batched_inputs, detected_instances, self._lowest_useful_score())
        if self.outputs != {"instances"}:
            logits = self._sem_seg_logits(features)
        sizes = _image_sizes(images)
        return [self._postprocess_one(*one) for one in zip(instances, logits, sizes, batched_inputs, strict=True)]

    def raw_outputs(
        self, batched_inputs: list[dict[str, Any]], detected_instances: list[Instances] | None = None
    ) -> RawOutputs:
        """What the network says of a batch, before any post-processing. Arguments as in :meth:`inference`."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        instances = self._detect(images, features, batched_inputs, detected_instances)
        return RawOutputs(instances, self._sem_seg_logits(features), _image_sizes(images))

    # -- training -------------------------------------------------------------------------------------------------

    def _sem_seg_targets(self, batched_inputs: list[dict[str, Any]], images: ImageList) -> torch.Tensor:
        """int64 (N, h, w), padded as the pictures are with the ignore label."""
        ignore_value = self.sem_seg_head.ignore_value
        targets = []
        for inputs, (height, width) in zip(batched_inputs, images.image_sizes, strict=True):
            target = inputs.get("sem_seg")
            if target is None:
                log_first_n(
                    logging.WARNING,
                    "A training picture has no 'sem_seg': it teaches the semantic head nothing. Does the data set have "
                    "semantic or panoptic ground truth, and the trainer PanopticDatasetMapper?",
                )
                target = torch.full((height, width), ignore_value)
            targets.append(target.to(self.device))
        return ImageList.from_tensors(
            targets,
            self.backbone.size_divisibility,
            pad_value=ignore_value,
            padding_constraints=self.backbone.padding_constraints,
        ).tensor

    def _gt_instances(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        if any("instances" not in inputs for inputs in batched_inputs):
            raise ValueError(
                "Every training picture needs 'instances' (which may be empty); does the mapper make them?"
            )
        return [inputs["instances"].to(self.device) for inputs in batched_inputs]

    def _loss_counts(self, sem_seg_targets: torch.Tensor, sampled: list[Instances]) -> dict[str, torch.Tensor | int]:
        """What each loss is averaged over; the proposal losses have a fixed divisor."""
        rois, masks = count_rois(sampled, self.roi_heads.num_classes)
        labelled = sem_seg_targets.ne(self.sem_seg_head.ignore_value).sum()
        return {"loss_sem_seg": labelled, "loss_cls": rois, "loss_box_reg": rois, "loss_mask": masks}

    def _weighted(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """λ_i on the losses of the instance branch, those of each cascade stage included."""
        weight = self.instance_loss_weight
        return {name: loss * weight if name.startswith(_INSTANCE_LOSSES) else loss for name, loss in losses.items()}

    # -- inference ------------------------------------------------------------------------------------------------

    def _detect(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None,
        score_threshold: float = -math.inf,
    ) -> list[Instances]:
        """Raw detections, from proposals or from given boxes; of the former, those below a score need no mask."""
        if detected_instances is not None:
            given = [x.to(self.device) for x in detected_instances]
            return self.roi_heads.forward_with_given_boxes(features, given)
        if self.proposal_generator is not None:
            proposals, _ = self.proposal_generator(images, features, None)
        else:
            proposals = [inputs["proposals"].to(self.device) for inputs in batched_inputs]
        if score_threshold > -math.inf:
            return detect_with_masks_above(self.roi_heads, images, features, proposals, score_threshold)
        instances, _ = self.roi_heads(images, features, proposals, None)
        return instances

    def _lowest_useful_score(self) -> float:
        """Score below which the mask of a detection changes no output."""
        if "instances" in self.outputs:
            return -math.inf
        return float(getattr(self.combiner, "instance_score_threshold", -math.inf))

    def _sem_seg_logits(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """float (N, C, h', w') at the stride that :func:`_logits_stride` gives."""
        if hasattr(self.sem_seg_head, "layers"):
            return self.sem_seg_head.layers(features)
        logits, _ = self.sem_seg_head(features, None)
        return logits

    def _postprocess_one(
        self,
        instances: Any,
        sem_seg_logits: Any,
        image_size: tuple[int, int],
        inputs: dict[str, Any],
    ) -> dict[str, Any]:
        """The outputs of one picture at output size; what none of them needs may be None."""
        output_size = (int(inputs.get("height", image_size[0])), int(inputs.get("width", image_size[1])))
        result: dict[str, Any] = {}
        if "sem_seg" in self.outputs:
            stride = _logits_stride(self.sem_seg_head)
            result["sem_seg"] = upsample_sem_seg_logits(sem_seg_logits, stride, image_size, output_size)
        if "instances" in self.outputs:
            result["instances"] = postprocess_instances(instances, output_size)
        if "panoptic_seg" in self.outputs:
            prediction = self.combiner(instances, sem_seg_logits, image_size, output_size)
            result["panoptic_seg"] = (prediction.panoptic_seg, prediction.segments_info)
        return result


def _image_sizes(images: ImageList) -> list[tuple[int, int]]:
    """(height, width) of each network input without padding."""
    return [(int(height), int(width)) for height, width in images.image_sizes]


def _logits_stride(sem_seg_head: Any) -> int:
    """Stride of what :meth:`PanopticFPNExt.raw_outputs` takes from a head: heads without ``layers`` give full size."""
    return int(sem_seg_head.common_stride) if hasattr(sem_seg_head, "layers") else 1
