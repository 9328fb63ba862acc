#!/usr/bin/env python
"""Learn DIN's five weights for a trained model, from images with panoptic annotations. The model stays as it is.

    learn_weights.py MODEL [--dataset NAME] [--images N] [--epochs N] [--register …] [--opts KEY VALUE …]

The loss is DIN's: cross entropy of what the CRF says of every pixel, where a detection's pixels are those of the
annotated segment of its class that it overlaps by more than half. It prints the weights as a config option.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import itertools
from typing import Any

import torch
from compare import load
from detectron2.data import DatasetCatalog
from torch.nn import functional as F
from tqdm import tqdm

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.data_descriptions import add_register_argument
from panoptic_fpn_ext.modeling import DINCombiner
from panoptic_fpn_ext.modeling.combiner.din_unary import DINWeights, LabelScores
from panoptic_fpn_ext.modeling.postprocessing import PlacedInstances, place_instances
from panoptic_fpn_ext.modeling.sem_seg_head import logits_stride
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

IGNORE = -1


def target_of(annotation: dict[str, Any], found: LabelScores, instances: PlacedInstances) -> torch.Tensor:
    """Which label each pixel should get, int64 (h, w) at the size of the network input; ``IGNORE`` where none can."""
    size = instances.image_size
    ids = torch.from_numpy(read_panoptic_png(annotation["pan_seg_file_name"]))
    ids = F.interpolate(ids[None, None].double(), size=size, mode="nearest")[0, 0].long()
    target = torch.full(size, IGNORE)
    segments = annotation["segments_info"]
    for number, label in enumerate(found.stuff, start=len(found.things)):
        for segment in segments:
            if not segment["isthing"] and segment["category_id"] == label:
                target[ids == segment["id"]] = number
    taken: set[int] = set()
    for number, k in enumerate(found.things):
        window, mask = instances.placement.windows[k], instances.paste(k, 0.5).cpu()
        for segment in segments:
            if segment["category_id"] != instances.placement.classes[k] or not segment["isthing"]:
                continue
            region = ids == segment["id"]
            shared = (mask & region[window]).sum()
            if segment["id"] not in taken and 2 * shared > mask.sum() + region.sum() - shared:
                taken.add(segment["id"])
                target[region] = number
    return target


def learn(combiner: DINCombiner, samples: list[Any], epochs: int, lr: float = 0.1) -> DINWeights:
    """The weights after some passes over the samples: inputs, raw outputs and annotation of an image each."""
    logs = torch.tensor([float(w) for w in combiner.weights]).clamp(min=1e-6).log().requires_grad_()
    optimizer = torch.optim.Adam([logs], lr=lr)
    for epoch in range(epochs):
        losses = []
        for inputs, raw, annotation in tqdm(samples, desc=f"Epoch {epoch + 1} of {epochs}", unit="image"):
            combiner.weights = DINWeights(*logs.exp())
            instances = place_instances(raw.instances[0], raw.image_sizes[0])
            found = combiner.label_scores(
                instances, raw.sem_seg_logits[0], raw.image_sizes[0], inputs["image"], prune=True
            )
            target = target_of(annotation, found, instances).to(found.scores.device)
            if not (target != IGNORE).any():
                continue
            loss = F.cross_entropy(found.scores[None], target[None], ignore_index=IGNORE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"loss {sum(losses) / max(1, len(losses)):.4f}  weights {_shown(logs)}", flush=True)
    return DINWeights(*logs.exp().tolist())


def _shown(logs: torch.Tensor) -> str:
    return "[" + ", ".join(f"{w:.4g}" for w in logs.exp().tolist()) + "]"


def main() -> None:
    """Learn and print."""
    args = argument_parser().parse_args()
    cfg, model = load(args.model, args.opts, args.register)
    dataset = args.dataset or cfg.DATASETS.TRAIN[0]
    loader = Trainer.build_test_loader(cfg, dataset)
    annotations = {one["image_id"]: one for one in DatasetCatalog.get(dataset)}
    step = max(1, len(loader) // args.images)  # neighbours are often of one scene
    with torch.no_grad():
        samples = [
            (inputs[0], model.raw_outputs(inputs), annotations[inputs[0]["image_id"]])
            for inputs in itertools.islice(loader, 0, step * args.images, step)
        ]
    combiner = DINCombiner(cfg, sem_seg_stride=logits_stride(model.sem_seg_head))
    weights = learn(combiner, samples, args.epochs)
    print(f'MODEL.PANOPTIC_FPN.COMBINE.DIN_WEIGHTS "{[float(f"{w:.4g}") for w in weights]}"')


def argument_parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = command_parser(
        __doc__,
        "python projects/din/learn_weights.py SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow",
    )
    parser.add_argument("model", metavar="MODEL", help="a trained model, as for compare.py")
    parser.add_argument("--dataset", help="images and annotations to learn from (default: the first of DATASETS.TRAIN)")
    parser.add_argument("--images", type=whole(1), default=32, metavar="N", help="take N of its images, evenly spread")
    parser.add_argument("--epochs", type=whole(1), default=4)
    add_register_argument(parser)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config options")
    return parser


if __name__ == "__main__":
    run_command(main)
