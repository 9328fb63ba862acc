#!/usr/bin/env python
"""A whole model on a CPU, image in, outputs out: detectron2's `PanopticFPN` against `optimize_for_inference`.

    OMP_NUM_THREADS=2 python projects/benchmark/network.py

R50, 800×1067 px in, 480×640 px out, 1,000 proposals, 100 detections, 20 of them above the score threshold. Weights are
random, with norms set to the statistics of the image so that activations are as large as a trained network's; all
sides have the same. They alternate in one process. See README.md.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from alternation import Sides, alternate, print_rows
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from environment import add_output_argument, write_report
from torch.nn import functional as F
from torch.profiler import profile

from panoptic_fpn_ext import add_panoptic_fpn_ext_config, optimize_for_inference
from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.data.planes import to_planes
from panoptic_fpn_ext.image_files import read_image

Inputs = list[dict[str, Any]]
INPUT_SIZE = (800, 1067)
OUTPUT_SIZE = (480, 640)
ABOVE_THRESHOLD = 20


@torch.no_grad()
def main() -> None:
    """Measure, print the table and write it as JSON."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    inputs = read_inputs(args.image)
    models = build_sides(inputs)
    outputs: dict[str, Any] = {}
    sides: Sides = {name: as_side(name, model, inputs, outputs) for name, model in models.items()}
    rows = alternate(sides, args.rounds, "cpu")
    for row in rows:
        row["wall_faster"] = rows[0]["wall_s"] / row["wall_s"]
        row["cpu_faster"] = rows[0]["cpu_s"] / row["cpu_s"]
        row["different_pixels"] = count_different(outputs[row["side"]], outputs["detectron2"])
    print_rows(rows)
    detections = len(outputs["detectron2"]["instances"])
    write_report(args.output, {"rows": rows, "rounds": args.rounds, "detections": detections})
    for name, model in models.items() if args.profile else ():
        print(f"\n{name}\n{operators(model, inputs)}")
    if args.compile:
        print("\nbackbones, also through torch.compile")
        print_rows(alternate(backbone_sides(models, inputs), args.rounds, "cpu"))


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = command_parser(__doc__, "OMP_NUM_THREADS=2 python projects/benchmark/network.py")
    parser.add_argument("--image", type=Path, help="an image; without one, smooth colours and noise")
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(0), default=0, help="of PyTorch; 0 is its own choice")
    parser.add_argument("--profile", action="store_true", help="print the operators that take longest, too")
    parser.add_argument("--compile", action="store_true", help="compare the backbones with what torch.compile makes")
    add_output_argument(parser, "network.json")
    return parser.parse_args()


def read_inputs(path: Path | None) -> Inputs:
    """One image at the size of the benchmark."""
    generator = torch.Generator().manual_seed(0)
    image = to_planes(read_image(path, "BGR")).float() if path else torch.rand(3, 12, 16, generator=generator) * 255
    image = F.interpolate(image[None], size=INPUT_SIZE, mode="bicubic")[0]
    if not path:
        image += torch.randn(image.shape, generator=generator) * 20
    height, width = OUTPUT_SIZE
    return [{"image": image.clamp(0, 255).byte(), "height": height, "width": width}]


def build_sides(inputs: Inputs) -> dict[str, Any]:
    """Models with the same weights; the first is what the others are compared with."""
    theirs, ours = build("PanopticFPN"), build("PanopticFPNExt")
    enliven(theirs, inputs)
    scores = theirs.inference(inputs, do_postprocess=False)[0][0].scores.sort(descending=True).values.tolist()
    threshold = (scores[ABOVE_THRESHOLD - 1] + scores[ABOVE_THRESHOLD]) / 2
    ours.load_state_dict(theirs.state_dict())
    theirs.combine_instances_score_thresh = ours.combiner.instance_score_threshold = threshold
    all_outputs = optimize_for_inference(ours, inputs)
    panoptic_only = copy.deepcopy(all_outputs)
    panoptic_only.outputs = frozenset(["panoptic_seg"])
    return {"detectron2": theirs, "ours, all outputs": all_outputs, "ours, panoptic_seg": panoptic_only}


def build(architecture: str) -> Any:
    """detectron2's panoptic_fpn_R_50_1x with random weights."""
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = architecture, "cpu", ""
    torch.manual_seed(0)
    return build_model(cfg).eval()


def enliven(model: Any, inputs: Inputs) -> None:
    """Give a network that knows nothing a thousand proposals, a hundred detections and masks with shapes."""
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(normalize) for norm in norms]
    model.backbone(model.preprocess_image(inputs).tensor)
    for hook in hooks:
        hook.remove()
    model.proposal_generator.rpn_head.anchor_deltas.weight.mul_(3)
    model.roi_heads.box_predictor.cls_score.weight.normal_(0, 0.15)
    model.roi_heads.mask_head.predictor.weight.normal_(0, 0.5)


def normalize(norm: Any, inputs: tuple[torch.Tensor]) -> None:
    """Set a norm's statistics to those of what comes in."""
    norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
    norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


def backbone_sides(models: dict[str, Any], inputs: Inputs) -> Sides:
    """The backbones of both alone: as they are, and compiled for this size, which the first call does."""
    x = models["detectron2"].preprocess_image(inputs).tensor
    sides: Sides = {}
    for name, model in (("detectron2", models["detectron2"]), ("ours", models["ours, all outputs"])):
        compiled = torch.compile(copy.deepcopy(model.backbone), dynamic=False)
        sides[name] = lambda _, backbone=model.backbone: backbone(x)
        sides[f"{name}, compiled"] = lambda _, backbone=compiled: backbone(x)
    return sides


def as_side(name: str, model: Any, inputs: Inputs, outputs: dict[str, Any]) -> Callable[[int], None]:
    """The same image each round; what comes out goes into ``outputs``."""

    def predict(_: int) -> None:
        outputs[name] = model(inputs)[0]

    return predict


def count_different(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """Pixels of the panoptic map with another category or another kind of segment."""
    categories = []
    for panoptic_seg, segments in (ours["panoptic_seg"], theirs["panoptic_seg"]):
        of_segment = torch.zeros(len(segments) + 1, dtype=torch.int64)
        for segment in segments:
            of_segment[segment["id"]] = 2 * segment["category_id"] + segment["isthing"] + 1
        categories.append(of_segment[panoptic_seg.long()])
    return int((categories[0] != categories[1]).sum())


def operators(model: Any, inputs: Inputs) -> str:
    """The operators that take longest."""
    with profile() as profiled:
        model(inputs)
    return str(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


if __name__ == "__main__":
    run_command(main)
