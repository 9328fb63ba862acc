"""Registry of combiners."""

from typing import Any, Protocol

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.registry import Registry

from ...structures import PanopticPrediction

__all__ = ["PANOPTIC_COMBINER_REGISTRY", "PanopticCombiner", "build_panoptic_combiner"]

PANOPTIC_COMBINER_REGISTRY = Registry("PANOPTIC_COMBINER")
PANOPTIC_COMBINER_REGISTRY.__doc__ = """
Registry of classes that merge one image's raw outputs into a panoptic map; ``MODEL.PANOPTIC_FPN.COMBINE.NAME``
picks one. The registered object is called as ``cls(cfg, **kwargs)`` and returns a :class:`PanopticCombiner`.
"""


class PanopticCombiner(Protocol):
    """What every combiner does.

    One with a class attribute ``needs_image = True`` is also given ``image``, (3, h, w) of `image_size`: the network
    input in values from 0 to 255, before it is normalised. One with ``takes_labels = True`` is given
    ``sem_seg_labels``, int32 of `output_size`, where the model returns them anyway.
    """

    def __call__(
        self,
        instances: Instances,
        sem_seg_logits: torch.Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> PanopticPrediction:
        """Merge the raw outputs of one image; see :class:`HeuristicCombiner` for the arguments."""
        ...


def build_panoptic_combiner(cfg: CfgNode, **kwargs: Any) -> PanopticCombiner:
    """Build the combiner that ``cfg.MODEL.PANOPTIC_FPN.COMBINE.NAME`` names (the paper's, where the key is absent).

    ``kwargs`` override what the combiner takes from the config.
    """
    name = cfg.MODEL.PANOPTIC_FPN.COMBINE.get("NAME", "HeuristicCombiner")
    return PANOPTIC_COMBINER_REGISTRY.get(name)(cfg, **kwargs)
