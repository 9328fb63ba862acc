"""What the model of a config predicts."""

from detectron2.config import CfgNode

from ...modeling.outputs import OUTPUTS

__all__ = ["WITHOUT_ROI_HEADS", "WITHOUT_SEM_SEG_HEAD", "measured_tasks", "model_outputs", "predicts"]

# The halves of a panoptic network, by detectron2's names.
WITHOUT_ROI_HEADS = ("SemanticSegmentor",)
WITHOUT_SEM_SEG_HEAD = ("GeneralizedRCNN",)


def model_outputs(cfg: CfgNode) -> frozenset[str]:
    """Those of ``panoptic_seg``, ``instances`` and ``sem_seg`` that the model gives of an image."""
    if cfg.MODEL.META_ARCHITECTURE in WITHOUT_ROI_HEADS:
        return frozenset(["sem_seg"])
    if cfg.MODEL.META_ARCHITECTURE in WITHOUT_SEM_SEG_HEAD:
        return frozenset(["instances"])
    return frozenset(cfg.MODEL.PANOPTIC_FPN.get("OUTPUTS", OUTPUTS))


def measured_tasks(cfg: CfgNode) -> list[str]:
    """Tasks, by their names in metrics.json, that an evaluation of the model can measure; datasets may measure less."""
    instances = ["bbox", "segm"] if cfg.MODEL.MASK_ON else ["bbox"]
    tasks = {"panoptic_seg": ["panoptic_seg"], "sem_seg": ["sem_seg"], "instances": instances}
    outputs = model_outputs(cfg)
    return [name for output, names in tasks.items() if output in outputs for name in names]


def predicts(cfg: CfgNode) -> tuple[bool, bool]:
    """Whether the model has RoI heads, and whether it has a semantic head."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    return architecture not in WITHOUT_ROI_HEADS, architecture not in WITHOUT_SEM_SEG_HEAD
