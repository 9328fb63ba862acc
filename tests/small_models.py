"""Tiny networks and batches for tests of training."""

import copy
from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.index_masks import IndexMasks


def tiny_cfg(architecture: str = "PanopticFPNExt", depth: int = 50) -> CfgNode:
    """Panoptic FPN R50 of detectron2's zoo with narrow layers, for CPUs."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
    model = cfg.MODEL
    model.DEVICE, model.WEIGHTS, model.META_ARCHITECTURE, model.RESNETS.DEPTH = "cpu", "", architecture, depth
    model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.RES2_OUT_CHANNELS, model.RESNETS.WIDTH_PER_GROUP = 8, 16, 4
    model.FPN.OUT_CHANNELS = 32
    model.ROI_BOX_HEAD.FC_DIM = model.ROI_MASK_HEAD.CONV_DIM = model.SEM_SEG_HEAD.CONVS_DIM = 32
    model.ROI_HEADS.NUM_CLASSES, model.SEM_SEG_HEAD.NUM_CLASSES = 4, 6
    model.RPN.POST_NMS_TOPK_TRAIN = 50
    return cfg


def detectron2_cfg(meta_architecture: str, depth: int = 50) -> CfgNode:
    """detectron2's own Panoptic FPN config for COCO, with thresholds at which untrained networks find something."""
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def tiny_batch(
    sizes: tuple[tuple[int, int], ...] = ((64, 96), (96, 64)), seed: int = 0, compact: bool = True
) -> list[dict]:
    """Images with two or three instances and random stuff."""
    generator = torch.Generator().manual_seed(seed)
    return [_tiny_image(h, w, generator, 2 + i % 2, compact) for i, (h, w) in enumerate(sizes)]


def _tiny_image(h, w, generator, count, compact):
    index_map = torch.zeros(h, w, dtype=torch.uint8)
    for k in range(count):
        index_map[8 + 18 * k : 24 + 18 * k, 6 + 9 * k : 40 + 9 * k] = k + 1
    masks = IndexMasks(index_map, torch.arange(1, count + 1))
    instances = Instances((h, w))
    instances.gt_boxes = Boxes(masks.get_bounding_boxes().tensor)
    instances.gt_classes = torch.randint(0, 4, (count,), generator=generator)
    instances.gt_masks = masks if compact else BitMasks(masks.tensor)
    sem_seg = torch.randint(0, 6, (h, w), generator=generator)
    sem_seg[:7] = 255
    image = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "sem_seg": sem_seg, "height": h, "width": w}


def built(cfg: CfgNode) -> Any:
    """The model of a config in training mode, always with the same weights."""
    torch.manual_seed(0)
    return build_model(cfg).train()


def untied(model: nn.Module) -> nn.Module:
    """The same model with weights from which neither activations grow from block to block nor scores and masks tie."""
    for name, module in model.named_modules():
        if name.endswith(("conv2.norm", "conv3.norm")):
            nn.init.constant_(module.weight, 0.2)
    nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.5)
    return model


def training_step(model: nn.Module, batch: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses and gradients by name, with the same random choices each time."""
    torch.manual_seed(1)
    with EventStorage():
        losses = model(copy.deepcopy(batch))
    sum(losses.values()).backward()
    return {k: v.detach() for k, v in losses.items()}, {
        k: p.grad for k, p in model.named_parameters() if p.grad is not None
    }
