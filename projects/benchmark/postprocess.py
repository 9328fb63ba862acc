"""Time and memory from raw outputs to the panoptic map: this package by turns with detectron2's `PanopticFPN`.

Times are taken in one process, where the contestants alternate, after a round that does not count; each peak of memory
in a process of its own (on a GPU by `max_memory_allocated`). README.md explains the figures.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import argparse
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Instances
from environment import write_report
from raw_outputs import IMAGE_SIZE, STRIDE, Kind, draw_instances, draw_logits
from torch.nn import functional as F

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine.device import synchronize
from panoptic_fpn_ext.modeling import HeuristicCombiner
from panoptic_fpn_ext.modeling.postprocessing import (
    OutputMemory,
    label_pixels,
    place_instances,
    postprocess_instances,
    upsample_sem_seg_logits,
)

Size = tuple[int, int]
Contestant = Callable[[Instances, torch.Tensor, Size], torch.Tensor]
SIZES: list[Size] = [(480, 640), (1024, 2048), (3000, 4000)]
COUNTS = [0, 20, 100, 300]
MIB = 2**20
MEMORY = OutputMemory()  # as a model has it: what the former image's outputs had, if they are gone


def built_in(instances: Instances, logits: torch.Tensor, size: Size) -> torch.Tensor:
    """detectron2's way, from where its semantic head upsamples the logits; the panoptic map."""
    logits = F.interpolate(logits[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    sem_seg = sem_seg_postprocess(logits, IMAGE_SIZE, *size)
    detections = detector_postprocess(instances, *size)
    return combine_semantic_and_instance_outputs(detections, sem_seg.argmax(dim=0), 0.5, 4096, 0.5)[0]


def ours(instances: Instances, logits: torch.Tensor, size: Size) -> torch.Tensor:
    """What a model of this package does when `panoptic_seg` is all that is asked for."""
    return HeuristicCombiner()(instances, logits, IMAGE_SIZE, size).panoptic_seg


def ours_all_outputs(instances: Instances, logits: torch.Tensor, size: Size) -> torch.Tensor:
    """What a model of this package does by default: `sem_seg` and `instances`, too."""
    instances = place_instances(instances, size)
    sem_seg = upsample_sem_seg_logits(logits, STRIDE, IMAGE_SIZE, size, MEMORY)
    kept = sem_seg, postprocess_instances(instances, size, memory=MEMORY)
    panoptic_seg = ours(instances, logits, size)
    del kept, sem_seg
    return panoptic_seg


def ours_with_labels(instances: Instances, logits: torch.Tensor, size: Size) -> torch.Tensor:
    """What one does when `panoptic_seg` and `sem_seg_labels` are asked for."""
    labels = label_pixels(logits, STRIDE, IMAGE_SIZE, size)
    return HeuristicCombiner()(instances, logits, IMAGE_SIZE, size, labels).panoptic_seg


CONTESTANTS: dict[str, Contestant] = {f.__name__: f for f in (built_in, ours, ours_all_outputs, ours_with_labels)}


def draw(kind: Kind, count: int, device: str) -> tuple[Instances, torch.Tensor]:
    """The same raw outputs each time."""
    torch.manual_seed(0)
    return draw_instances(count).to(device), draw_logits(kind).to(device)


def copy_of(instances: Instances) -> Instances:
    """detectron2 scales boxes in place."""
    return Instances(instances.image_size, **{**instances.get_fields(), "pred_boxes": instances.pred_boxes.clone()})


def measure_times(kind: Kind, size: Size, count: int, rounds: int, device: str) -> dict[str, Any]:
    """Seconds of each contestant in each round, and how many pixels of the maps differ."""
    instances, logits = draw(kind, count, device)
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    maps = {}
    for _ in range(rounds + 1):
        for name, run in CONTESTANTS.items():
            given = copy_of(instances)
            synchronize(device)
            start = time.perf_counter()
            maps[name] = run(given, logits, size)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    different = int((maps["built_in"] != maps["ours"]).sum())
    return {
        "seconds": {name: values[1:] for name, values in seconds.items()},
        "median": {name: statistics.median(values[1:]) for name, values in seconds.items()},
        "different_pixels": different,
    }


def measure_memory(kind: Kind, size: Size, count: int, device: str) -> dict[str, float]:
    """MiB that each contestant needs beside its inputs, its result included, each in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--kind", kind, "--sizes", f"{size[0]}x{size[1]}"]
    command += ["--counts", str(count), "--peak-of"]
    return {name: float(subprocess.check_output([*command, name], text=True).split()[-1]) for name in CONTESTANTS}


def peak_of(name: str, kind: Kind, size: Size, count: int, device: str) -> float:
    """MiB of one contestant, measured in this process."""
    run = CONTESTANTS[name]
    # Libraries load and threads start at the first call.
    run(*draw("smooth", 2, device), (64, 64))
    instances, logits = draw(kind, count, device)
    before = _peak_bytes(device, restart=True)
    run(instances, logits, size)
    return (_peak_bytes(device) - before) / MIB


def _peak_bytes(device: str, restart: bool = False) -> int:
    """Most memory used since the last restart."""
    if device != "cpu":
        synchronize(device)
        if restart:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux: the peak of the whole process, which earlier steps may have set
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if restart:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against image size and against the number of instances."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, (key, label) in enumerate([("median", "seconds"), ("mebibytes", "MiB")]):
        for column, (vary, keep) in enumerate([("megapixels", "count"), ("count", "megapixels")]):
            fixed = _most_common([case[keep] for case in cases])
            chosen = sorted((case for case in cases if case[keep] == fixed), key=lambda case: case[vary])
            for name in CONTESTANTS:
                x, y = [case[vary] for case in chosen], [case[key][name] for case in chosen]
                axes[row, column].plot(x, y, marker="o", label=name.replace("_", " "))
            axes[row, column].set(xlabel=vary, ylabel=label, yscale="log", title=f"{keep}: {fixed:g}")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def _most_common(values: list[float]) -> float:
    return max(values, key=lambda value: (values.count(value), value))


def report(case: dict[str, Any]) -> str:
    """One line of the table."""
    ratio = {name: case["median"]["built_in"] / case["median"][name] for name in CONTESTANTS}
    height, width = case["size"]
    times = "  ".join(f"{name} {case['median'][name] * 1e3:7.0f} ms ({ratio[name]:4.1f}x)" for name in CONTESTANTS)
    memory = "  ".join(f"{case['mebibytes'][name]:5.0f}" for name in CONTESTANTS)
    different = case["different_pixels"]
    return f"{height:4}x{width:<4} {case['count']:3} instances  {times}  MiB {memory}  {different} px differ"


def main() -> None:
    """Run the command line."""
    args = argument_parser().parse_args()
    torch.set_grad_enabled(False)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.peak_of:
        print(peak_of(args.peak_of, args.kind, args.sizes[0], args.counts[0], args.device))
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Measure all cases: every size with the count of ``--count``, and every count at the size of ``--size``."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    wanted = [(size, args.count) for size in args.sizes]
    wanted += [(args.size, count) for count in args.counts if (args.size, count) not in wanted]
    cases = []
    for size, count in wanted:
        case: dict[str, Any] = {"size": size, "megapixels": size[0] * size[1] / 1e6, "count": count}
        case |= measure_times(args.kind, size, count, args.rounds, args.device)
        case["mebibytes"] = measure_memory(args.kind, size, count, args.device)
        print(report(case), flush=True)
        cases.append(case)
    content = {"logits": args.kind, "rounds": args.rounds, "cases": cases}
    write_report(args.output_dir / f"postprocess_{args.kind}.json", content, args.device)
    plot(cases, args.output_dir / f"postprocess_{args.kind}.png")


def parse_size(text: str) -> Size:
    """``"480x640"`` as (480, 640)."""
    if not re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"a height and a width in pixels, as 480x640, not {text}")
    height, width = map(int, text.split("x"))
    return height, width


def argument_parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = command_parser(__doc__, "python projects/benchmark/postprocess.py")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--kind", default="smooth", choices=["smooth", "noise"], help="of the logits")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=SIZES, metavar="HxW")
    parser.add_argument("--size", type=parse_size, default=SIZES[1], metavar="HxW", help="where the counts vary")
    parser.add_argument("--counts", nargs="*", type=whole(0), default=COUNTS)
    parser.add_argument("--count", type=whole(0), default=100, help="of instances where the sizes vary")
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(0), default=0, help="of PyTorch; 0 is its own choice")
    parser.add_argument("--output-dir", type=Path, default=Path("output/benchmark"), help="default: %(default)s")
    parser.add_argument("--peak-of", choices=list(CONTESTANTS), help="print the MiB of one contestant and stop")
    return parser


if __name__ == "__main__":
    run_command(main)
