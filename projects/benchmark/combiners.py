"""Time and memory of the two combiners, from raw outputs to the panoptic map, by image size.

The network input is as large as the output. Each combiner is measured in a process of its own, so that the peak of
memory is its own; README.md of projects/din has the figures.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from environment import add_output_argument, write_report
from postprocess import parse_size
from raw_outputs import STRIDE, draw_instances, draw_logits
from tabulate import tabulate
from torch.nn import functional as F

from panoptic_fpn_ext.command import command_parser, run_command, whole
from panoptic_fpn_ext.engine.memory import PeakMemory, returning_memory
from panoptic_fpn_ext.modeling import DINCombiner, HeuristicCombiner

COMBINERS = {"HeuristicCombiner": HeuristicCombiner, "DINCombiner": DINCombiner}


def draw_image(size: tuple[int, int]) -> torch.Tensor:
    """uint8 (3, H, W): regions of colour with noise."""
    regions = F.interpolate(torch.rand(1, 3, 24, 32), size=size, mode="bicubic")[0] * 255
    return (regions + torch.randn_like(regions) * 4).clamp(0, 255).byte()


def draw_arguments(name: str, size: tuple[int, int], count: int) -> dict[str, Any]:
    """Of a call of a combiner."""
    logits = draw_logits("smooth", (-(-size[0] // STRIDE), -(-size[1] // STRIDE)))
    arguments = {"instances": draw_instances(count, size), "sem_seg_logits": logits}
    image = {"image": draw_image(size)} if name == "DINCombiner" else {}
    return {**arguments, "image_size": size, "output_size": size, **image}


def measure(name: str, size: tuple[int, int], count: int, rounds: int) -> dict[str, Any]:
    """Median of the seconds of a call, and MiB that the calls need beyond their inputs."""
    combine, seconds = COMBINERS[name](), []
    combine(**draw_arguments(name, (64, 64), 2))  # libraries load and threads start
    torch.manual_seed(0)
    arguments = draw_arguments(name, size, count)
    with PeakMemory("cpu") as memory:
        for _ in range(rounds):
            start = time.perf_counter()
            combine(**arguments)
            seconds.append(time.perf_counter() - start)
    return {
        "combiner": name,
        "size": size,
        "seconds": statistics.median(seconds),
        "MiB": (memory.highest - memory.before) / 2**20,
    }


def main() -> None:
    """Measure both combiners at all sizes."""
    parser = command_parser(__doc__, "python projects/benchmark/combiners.py --sizes 512x1024 1024x2048")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[(480, 640), (1024, 2048)], metavar="HxW")
    parser.add_argument("--count", type=whole(0), default=100, help="of detections (default: %(default)s)")
    parser.add_argument("--rounds", type=whole(1), default=3, help="default: %(default)s")
    add_output_argument(parser, "combiners.json")
    parser.add_argument("--only", choices=COMBINERS, help="print the figures of one combiner as JSON and stop")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.sizes[0], args.count, args.rounds)))
        return
    command = [sys.executable, __file__, "--count", str(args.count), "--rounds", str(args.rounds)]
    rows = []
    for height, width in args.sizes:
        for name in COMBINERS:
            one = [*command, "--sizes", f"{height}x{width}", "--only", name]
            said = subprocess.check_output(one, text=True, env=returning_memory())
            rows.append(json.loads(said.splitlines()[-1]))
    cells = [[f"{r['size'][0]}×{r['size'][1]}", r["combiner"], f"{r['seconds']:.3f}", f"{r['MiB']:.0f}"] for r in rows]
    print(tabulate(cells, headers=["output", "combiner", "seconds", "MiB"], tablefmt="pipe", disable_numparse=True))
    write_report(args.output, {"rows": rows})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_command(main)
