"""Tiny networks, and a few steps with them, for rehearsals on a pretended GPU."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from pretend_gpu import on_host
from small_models import tiny_batch, tiny_cfg

from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.training.train_step import choose_train_step

Change = Callable[[CfgNode], None]


def cascade(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = "CascadeROIHeads", True
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 500


def two_networks(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SeparatePanopticNetworks"


def all_categories(cfg: CfgNode) -> None:
    """The semantic head knows every thing by its own label, not one for all."""
    cfg.MODEL.PANOPTIC_FPN.COMBINE.THING_SEM_SEG_IDS = [0, 1, 2, 4]


def panoptic_only(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.OUTPUTS = ["panoptic_seg"]


def split(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.SPLIT_FPN_CHANNELS = True


def checkpointed(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS = True


def alternate(cfg: CfgNode) -> None:
    cfg.MODEL.PANOPTIC_FPN.ALTERNATE_LOSSES = True


def as_it_is(cfg: CfgNode) -> None:
    """Panoptic FPN."""


def crowded(cfg: CfgNode) -> None:
    """A hundred candidates an image, which lie on one another."""
    cfg.MODEL.RPN.NMS_THRESH, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.9, 1.0


def build_tiny(change: Change = as_it_is, architecture: str = "PanopticFPNExt") -> Any:
    """A tiny network that knows nothing and is sure of it."""
    cfg = tiny_cfg(architecture)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 10
    change(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.normal_()
        model.proposal_generator.rpn_head.anchor_deltas.weight.normal_(std=0.3)
        model.sem_seg_head.predictor.weight.normal_()
        model.roi_heads.mask_head.predictor.weight.normal_()
    return model


def draw_images(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [{k: v for k, v in one.items() if k in ("image", "height", "width")} for one in tiny_batch(sizes)]


def assert_close(ours: Any, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(ours, expected, **(tolerance or {"rtol": 1e-4, "atol": 1e-5}))


def build_optimizer(model: torch.nn.Module, name: str) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(get_default_optimizer_params(model, base_lr=1e-3), 1e-3, momentum=0.9)
    return torch.optim.AdamW(model.parameters(), 1e-5)


def train(model: torch.nn.Module, optimizer: str, iterations: int = 2, **step: Any) -> dict[str, Any]:
    """Losses of each iteration, and the parameters after them."""
    trainer = choose_train_step(model.train(), [tiny_batch()] * iterations, build_optimizer(model, optimizer), **step)
    torch.manual_seed(1)
    found = {}
    with EventStorage() as storage:
        for trainer.iter in range(iterations):
            storage.iter = trainer.iter
            trainer.run_step()
            found |= {(trainer.iter, k): v for k, (v, _) in storage.latest().items() if "time" not in k}
    return {"losses": found, "parameters": {k: on_host(v) for k, v in model.state_dict().items()}}


def trained(cfg: CfgNode, resume: bool = False) -> str:
    """Path of the last checkpoint."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return f"{cfg.OUTPUT_DIR}/model_final.pth"
