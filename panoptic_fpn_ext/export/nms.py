"""Non-maximum suppression as one operator of ONNX.

torchvision's `batched_nms` takes one of two ways by the number of boxes: few are moved apart, class by class, and
suppressed in one go; many are suppressed class by class. Coordinates of boxes that were moved are rounded, so the two
can differ. A graph has no such branch: here the count decides about two tensors, and the operator sees the same boxes.

Shapes: B boxes, C classes, K kept.
"""

from typing import Any

import torch
from torchvision.ops import batched_nms

from .program import suppress_in_program
from .tensors import is_program, length

__all__ = ["non_maximum_suppression"]

_FEW_COORDINATES = 4000  # torchvision's limit on a CPU
_LEAST_SCORE = -1e30  # of any box; logits are compared too


def non_maximum_suppression(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, threshold: float, num_classes: int, most: int
) -> torch.Tensor:
    """Rows that `batched_nms` keeps, by falling score, int64 (K,).

    Args:
        boxes: float (B, 4), XYXY, not negative.
        scores: float (B,).
        classes: int64 (B,), below ``num_classes``; boxes of different classes do not suppress each other.
        threshold: intersection over union above which the lower score goes.
        num_classes: C.
        most: how many are wanted; negative: all.
    """
    if is_program():
        kept = suppress_in_program(boxes, scores, classes, threshold)
        return kept if most < 0 else kept[:most]
    is_few = (4 * length(boxes, 0) <= _FEW_COORDINATES).to(torch.int64)
    largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    apart = boxes + (classes * is_few).to(boxes.dtype)[:, None] * (largest + 1)
    own = (classes * (1 - is_few))[None] == torch.arange(num_classes)[:, None]
    by_class = torch.where(own, scores[None], torch.full_like(scores, 2 * _LEAST_SCORE)[None])
    kept = _Suppression.apply(apart, by_class, boxes, scores, classes, threshold, most)
    return kept if most < 0 else kept[:most]


class _Suppression(torch.autograd.Function):
    """torchvision's function when run; when written down `NonMaxSuppression`, whose rows come class by class, and what
    sorts them by score. Rows of equal score stay in their order: PyTorch's sort, on some CPUs, does not keep it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        apart: torch.Tensor,
        by_class: torch.Tensor,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        classes: torch.Tensor,
        threshold: float,
        most: int,
    ) -> torch.Tensor:
        return batched_nms(boxes, scores, classes, threshold)

    @staticmethod
    def symbolic(
        g: Any, apart: Any, by_class: Any, boxes: Any, scores: Any, classes: Any, threshold: float, most: int
    ) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        first = constant([0], torch.int64)
        found = g.op(
            "NonMaxSuppression",
            g.op("Unsqueeze", apart, first),
            g.op("Unsqueeze", by_class, first),
            constant([most if most >= 0 else 2**31 - 1], torch.int64),
            constant([threshold], torch.float32),
            constant([_LEAST_SCORE], torch.float32),
        )
        rows = g.op("Gather", found, constant(2, torch.int64), axis_i=1)
        count = g.op("Shape", rows)
        rows, _ = g.op("TopK", rows, count, largest_i=0, outputs=2)
        _, order = g.op("TopK", g.op("Gather", scores, rows), count, outputs=2)
        return g.op("Gather", rows, order).setType(classes.type())
