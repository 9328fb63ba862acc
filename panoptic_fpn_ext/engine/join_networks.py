"""Two networks that were trained apart as one checkpoint of ``SeparatePanopticNetworks``.

``python -m panoptic_fpn_ext.engine.join_networks --config-file separate_….yaml --instance-weights mask_rcnn.pth
--semantic-weights semantic_fpn.pth --output separate.pth``
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model

from ..categories import PanopticCategories
from ..category_comparison import refuse_different_categories
from ..command import command_parser, run_command
from ..modeling import SeparatePanopticNetworks
from ..modeling.separate_networks import join_state_dicts
from ..whole_files import keep_inputs
from .checkpoints.checkpoint import PanopticCheckpointer
from .checkpoints.model_categories import RECORD, CategorySource, categories_of_record, category_record
from .data_descriptions import add_register_argument
from .setup import load_prediction_config

__all__ = ["join_networks"]


def join_networks(model: SeparatePanopticNetworks, instance_weights: str, semantic_weights: str, output: str) -> None:
    """Write a checkpoint for a model, and leave the model with its weights.

    Args:
        model: tells which parameters there must be.
        instance_weights: checkpoint of a Mask R-CNN.
        semantic_weights: checkpoint of a Semantic FPN.
        output: path of the new checkpoint; nothing is left there when the weights do not fit.

    Raises:
        FileNotFoundError, ValueError: a file is absent, is no checkpoint, or does not fit the model; the two record
            different categories; or ``output`` is one of them.
    """
    keep_inputs([output], [instance_weights, semantic_weights])
    contents = [PanopticCheckpointer(torch.nn.Module()).read(path) for path in (instance_weights, semantic_weights)]
    instance_network, semantic_network = (_weights(content) for content in contents)
    joined: dict[str, Any] = {"model": join_state_dicts(instance_network, semantic_network)}
    instance, semantic = map(categories_of_record, contents, (instance_weights, semantic_weights))
    if semantic is not None:
        joined[RECORD] = category_record(_joined_categories(instance, semantic))
    part = Path(f"{output}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    torch.save(joined, part)
    try:
        PanopticCheckpointer(model, complete=True).load(str(part))
        part.rename(output)
    finally:
        part.unlink(missing_ok=True)


def _weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in content["model"].items()}


def _joined_categories(instance: CategorySource | None, semantic: CategorySource) -> PanopticCategories:
    """Those of the semantic network, which has both kinds, if the instance network has the same."""
    if instance is None:
        return semantic.categories
    refuse_different_categories(
        semantic.categories.rows,
        semantic.name,
        instance.categories.rows,
        instance.name,
        remedy="Two networks can be joined that were trained with the same categories.",
        may_be_part=not instance.categories.num_stuff,  # of a detector alone
    )
    return semantic.categories


def main(arguments: Sequence[str] | None = None) -> Any:
    """The command."""
    parser = command_parser(
        "Join a Mask R-CNN and a Semantic FPN that were trained apart.",
        "python -m panoptic_fpn_ext.engine.join_networks \\\n"
        "    --config-file configs/COCO-PanopticSegmentation/separate_R_50_FPN_x2_1x.yaml \\\n"
        "    --instance-weights mask_rcnn.pth --semantic-weights semantic_fpn.pth --output separate.pth",
        prog="python -m panoptic_fpn_ext.engine.join_networks",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the two networks together")
    parser.add_argument("--instance-weights", required=True, metavar="FILE", help="the Mask R-CNN's checkpoint")
    parser.add_argument("--semantic-weights", required=True, metavar="FILE", help="the Semantic FPN's checkpoint")
    parser.add_argument("--output", required=True, metavar="FILE", help="where the joined checkpoint goes")
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    args = parser.parse_args(arguments)
    model = build_model(load_prediction_config(args.config_file, args.opts, args.register))
    if not isinstance(model, SeparatePanopticNetworks):
        raise ValueError(f"{args.config_file}: MODEL.META_ARCHITECTURE must be SeparatePanopticNetworks.")
    join_networks(model, args.instance_weights, args.semantic_weights, args.output)
    print(f"The two networks are in {args.output}")  # noqa: T201 (a command line)


if __name__ == "__main__":
    run_command(main)
