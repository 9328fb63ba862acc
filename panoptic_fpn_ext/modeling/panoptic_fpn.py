"""Panoptic FPN: one network, an FPN shared by Mask R-CNN and a semantic branch.

Shapes: N images, C semantic classes, h, w network input, H, W output.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    build_proposal_generator,
    build_roi_heads,
    build_sem_seg_head,
)
from detectron2.structures import ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn

from ..structures import RawOutputs
from .acceleration import accelerate_training
from .box_branch import detect_with_masks_above
from .branches import BOTH, Branches, Features, split_features, split_shapes
from .combiner import build_panoptic_combiner
from .combiner.build import PanopticCombiner
from .compilation import left_to_python
from .global_average import Counts, average_over_processes, count_rois
from .graph_capture import is_capturing_graph, whole_number
from .outputs import OUTPUTS, POSSIBLE_OUTPUTS, SEMANTIC_OUTPUTS, image_outputs, lowest_useful_score
from .postprocessing import OutputMemory
from .precision import in_weights_precision
from .sem_seg_head import PanopticFPNSemSegHead, logits_stride, raw_logits
from .training_inputs import gt_instances, sem_seg_targets

__all__ = ["PanopticFPNExt"]

_INSTANCE_LOSSES = ("loss_cls", "loss_box_reg", "loss_mask")


@META_ARCH_REGISTRY.register()
@left_to_python("preprocess_image", "_detect", "_instance_losses", "_semantic_losses", "_postprocess_one")
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
        alternate_losses: bool = False,
        split_fpn_channels: bool = False,
        checkpoint_activations: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: a semantic head of detectron2's registry.
            combiner: merges the raw outputs of one image; its ``sem_seg_stride``, if it has one, is the head's.
            instance_loss_weight: λ_i of the paper.
            outputs: those of ``POSSIBLE_OUTPUTS`` that inference returns; only what they need is computed.
            alternate_losses: train the instance branch (RPN included) in even iterations and the semantic branch in odd
                ones, instead of both in each.
            split_fpn_channels: the instance branch sees the first half of the pyramid's channels and the semantic
                branch the second; the branches must be built for that many.
            checkpoint_activations: see ``MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS``.
            kwargs: arguments of `GeneralizedRCNN`.

        Raises:
            ValueError: no output, or an unknown one, or a combiner for logits of another stride.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combiner = combiner
        self.instance_loss_weight = instance_loss_weight
        self.alternate_losses = alternate_losses
        self.split_fpn_channels = split_fpn_channels
        self.outputs = frozenset(outputs)
        self._output_memory = OutputMemory()
        if not self.outputs or not self.outputs.issubset(POSSIBLE_OUTPUTS):
            raise ValueError(
                f"MODEL.PANOPTIC_FPN.OUTPUTS must name some of {list(POSSIBLE_OUTPUTS)}, got {list(outputs)}."
            )
        stride, found = logits_stride(sem_seg_head), getattr(combiner, "sem_seg_stride", None)
        if found not in (None, stride):
            raise ValueError(
                f"The semantic head's logits have stride {stride}, the combiner's sem_seg_stride is {found}."
            )
        accelerate_training(self, checkpoint_activations)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from a config of detectron2's `PanopticFPN`, with or without this package's keys.

        Raises:
            ValueError: ``MODEL.MASK_ON`` is off.
        """
        if not cfg.MODEL.MASK_ON:
            raise ValueError("PanopticFPNExt needs instance masks: set MODEL.MASK_ON to True.")
        ret: dict[str, Any] = super().from_config(cfg)
        ret["checkpoint_activations"] = cfg.MODEL.BACKBONE.get("CHECKPOINT_ACTIVATIONS", False)
        semantic_shape = ret["backbone"].output_shape()
        ret["split_fpn_channels"] = cfg.MODEL.PANOPTIC_FPN.get("SPLIT_FPN_CHANNELS", False)
        if ret["split_fpn_channels"]:
            instance_shape, semantic_shape = split_shapes(semantic_shape)
            ret["proposal_generator"] = build_proposal_generator(cfg, instance_shape)
            ret["roi_heads"] = build_roi_heads(cfg, instance_shape)
        if cfg.MODEL.SEM_SEG_HEAD.NAME == "SemSegFPNHead":  # detectron2's default; ours has the same parameters
            sem_seg_head: nn.Module = PanopticFPNSemSegHead(cfg, semantic_shape)
        else:
            sem_seg_head = build_sem_seg_head(cfg, semantic_shape)
        ret["sem_seg_head"] = sem_seg_head
        ret["combiner"] = build_panoptic_combiner(cfg, sem_seg_stride=logits_stride(sem_seg_head))
        ret["instance_loss_weight"] = cfg.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT
        ret["outputs"] = cfg.MODEL.PANOPTIC_FPN.get("OUTPUTS", OUTPUTS)
        ret["alternate_losses"] = cfg.MODEL.PANOPTIC_FPN.get("ALTERNATE_LOSSES", False)
        return ret

    @in_weights_precision
    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """
        Args:
            batched_inputs: one dict an image with ``image`` (float or uint8 (3, h, w)). Training also needs
                ``sem_seg`` (int64 (h, w)) and ``instances``; in inference ``height`` and ``width`` give the output
                size.

        Returns:
            In training a dict of scalar losses: ``loss_sem_seg``, ``loss_rpn_cls``, ``loss_rpn_loc``, ``loss_cls``,
            ``loss_box_reg``, ``loss_mask``. In inference one dict an image with those of ``outputs``, in detectron2's
            format: ``panoptic_seg``, a pair of int32 (H, W) and a list of segments; ``instances``; ``sem_seg``, float
            (C, H, W) logits; ``sem_seg_labels``, int32 (H, W), their argmax.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        branches = self._branches_to_train()
        instance_features, semantic_features = self._features(images, branches)
        losses: dict[str, torch.Tensor] = {}
        counts: Counts = {}
        if branches.instances:
            losses, counts = self._instance_losses(batched_inputs, images, instance_features)
        if branches.semantics:
            # Last, so that its backward pass comes first and its memory is free before the other heads need more.
            semantic_losses, labelled = self._semantic_losses(batched_inputs, images, semantic_features)
            losses, counts = {**semantic_losses, **losses}, {**labelled, **counts}
        return average_over_processes(losses, counts)

    @in_weights_precision
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
        assert not self.training, "This is for a model in evaluation mode: call its eval() first."
        images = self.preprocess_image(batched_inputs)
        if not do_postprocess:
            instance_features, _ = self._features(images, Branches(instances=True, semantics=False))
            return self._detect(images, instance_features, batched_inputs, detected_instances)
        branches = Branches(instances=bool(self.outputs - SEMANTIC_OUTPUTS), semantics=self.outputs != {"instances"})
        instance_features, semantic_features = self._features(images, branches)
        instances: Sequence[Any] = [None] * len(batched_inputs)
        logits: Any = instances
        if branches.instances:
            least_score = lowest_useful_score(self.outputs, self.combiner)
            instances = self._detect(images, instance_features, batched_inputs, detected_instances, least_score)
        if branches.semantics:
            logits = raw_logits(self.sem_seg_head, semantic_features)
        sizes = _image_sizes(images)
        return [self._postprocess_one(*one) for one in zip(instances, logits, sizes, batched_inputs, strict=True)]

    @in_weights_precision
    def raw_outputs(
        self, batched_inputs: list[dict[str, Any]], detected_instances: list[Instances] | None = None
    ) -> RawOutputs:
        """What the network says of a batch, before any post-processing. Arguments as in :meth:`inference`."""
        images = self.preprocess_image(batched_inputs)
        instance_features, semantic_features = self._features(images, BOTH)
        instances = self._detect(images, instance_features, batched_inputs, detected_instances)
        return RawOutputs(instances, raw_logits(self.sem_seg_head, semantic_features), _image_sizes(images))

    def _features(self, images: ImageList, branches: Branches) -> tuple[Features, Features]:
        """What the instance and what the semantic branch see of a batch; for a branch that is not asked for, anything.

        The one place where a model says what its branches share.
        """
        features = self.backbone(images.tensor)
        return split_features(features) if self.split_fpn_channels else (features, features)

    # -- training -------------------------------------------------------------------------------------------------

    def _branches_to_train(self) -> Branches:
        if not self.alternate_losses:
            return BOTH
        instances = get_event_storage().iter % 2 == 0
        return Branches(instances, not instances)

    def _instance_losses(
        self, batched_inputs: list[dict[str, Any]], images: ImageList, features: Features
    ) -> tuple[dict[str, torch.Tensor], Counts]:
        """Losses of RPN and RoI heads, and what the latter are averaged over; the former have a fixed divisor."""
        targets = gt_instances(batched_inputs, self.device)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        sampled, detector_losses = self.roi_heads(images, features, proposals, targets)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        rois, masks = count_rois(sampled, self.roi_heads.num_classes) if comm.get_world_size() > 1 else (0, 0)
        counts: Counts = {"loss_cls": rois, "loss_box_reg": rois, "loss_mask": masks}
        return {**proposal_losses, **self._weighted(detector_losses)}, counts

    def _semantic_losses(
        self, batched_inputs: list[dict[str, Any]], images: ImageList, features: Features
    ) -> tuple[dict[str, torch.Tensor], Counts]:
        """The semantic loss, and how many pixels it is averaged over."""
        ignore_value = self.sem_seg_head.ignore_value
        targets = sem_seg_targets(batched_inputs, images, self.backbone, ignore_value)
        _, losses = self.sem_seg_head(features, targets)
        return losses, {"loss_sem_seg": targets.ne(ignore_value).sum()}

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
        if score_threshold > -math.inf and not is_capturing_graph():
            return detect_with_masks_above(self.roi_heads, images, features, proposals, score_threshold)
        instances, _ = self.roi_heads(images, features, proposals, None)
        return instances

    def _postprocess_one(
        self, instances: Any, sem_seg_logits: Any, image_size: tuple[int, int], inputs: dict[str, Any]
    ) -> dict[str, Any]:
        """The outputs of one image at output size; what none of them needs may be None."""
        height, width = inputs.get("height", image_size[0]), inputs.get("width", image_size[1])
        output_size = whole_number(height), whole_number(width)
        return image_outputs(
            instances,
            sem_seg_logits,
            image_size,
            output_size,
            outputs=self.outputs,
            combiner=self.combiner,
            sem_seg_stride=logits_stride(self.sem_seg_head),
            image=inputs.get("image"),
            memory=self._output_memory,
        )


def _image_sizes(images: ImageList) -> list[tuple[int, int]]:
    """(height, width) of each network input without padding."""
    return [(whole_number(size[0]), whole_number(size[1])) for size in images.image_sizes]
