"""The views of test-time augmentation: resized, perhaps mirrored, copies of one image."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import HFlipTransform, ResizeShortestEdge, ResizeTransform, TransformList

__all__ = ["Views"]


class Views:
    """The views that ``TEST.AUG`` describes, as detectron2's `DatasetMapperTTA` makes them, but one by one.

    The largest come first: what is gathered of the views grows while they shrink, and the memory with it does not.
    """

    @configurable
    def __init__(self, *, min_sizes: Sequence[int], max_size: int, flip: bool) -> None:
        """
        Args:
            min_sizes: of the shorter side, px.
            max_size: of the longer side, px.
            flip: whether each size is seen mirrored too.

        Raises:
            ValueError: no size, or one below 1.
        """
        if not min_sizes or min(min_sizes) < 1 or max_size < 1:
            raise ValueError(f"TEST.AUG.MIN_SIZES and MAX_SIZE must be 1 px or more, got {min_sizes}, {max_size}.")
        self.min_sizes = sorted(min_sizes, reverse=True)
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``cfg.TEST.AUG``."""
        aug = cfg.TEST.AUG
        return {"min_sizes": aug.MIN_SIZES, "max_size": aug.MAX_SIZE, "flip": aug.FLIP}

    def __call__(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Views of one image.

        Args:
            inputs: ``image``, float or uint8 (3, h, w), best at its own size; ``height`` and ``width`` of the output.

        Yields:
            As ``inputs``, with the view's ``image`` and ``transforms``, from the output to the view.
        """
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()
        height, width = image.shape[:2]
        to_input = ResizeTransform(inputs.get("height", height), inputs.get("width", width), height, width)
        for size in self.min_sizes:
            new_size = ResizeShortestEdge.get_output_shape(height, width, size, self.max_size)
            new_h, new_w = (max(1, side) for side in new_size)
            resize = ResizeTransform(height, width, new_h, new_w)
            resized = resize.apply_image(image)
            mirror = HFlipTransform(new_w)
            yield _view(inputs, resized, [to_input, resize])
            if self.flip:
                yield _view(inputs, mirror.apply_image(resized), [to_input, resize, mirror])


def _view(inputs: Mapping[str, Any], image: Any, transforms: list[Any]) -> dict[str, Any]:
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    return {**inputs, "image": tensor, "transforms": TransformList(transforms)}
