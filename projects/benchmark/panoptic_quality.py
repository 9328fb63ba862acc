"""CPU time from model outputs to Panoptic Quality, side by side with what else there is.

Predictions are the ground truth, moved by a few pixels, with some segments lost. All evaluators run by turns in one
process with one thread, and must agree on the result; peers that are not installed are left out with a note.
"""

import panoptic_fpn_ext  # noqa: F401 - first: it keeps what PyTorch announces to detectron2 off the console

# isort: split
import os

os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"  # before anything starts its threads

import contextlib
import copy
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import panopticapi.evaluation
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator
from environment import write_report

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.command import command_parser, real, run_command, whole
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.panoptic_png import id2rgb, png_decoders, read_panoptic_png

DATASET = "panoptic_quality_benchmark"
PACKAGES = ("hotcoco", "kornia_rs", "opencv-python-headless", "pillow")
CACHE_BYTES = 1 << 28
WITH_CAUSES = "ours, with the causes of errors"

Outputs = list[dict[str, Any]]
Run = Callable[[Outputs], float]


class Data:
    """Images of one size, repeated under new ids, as inputs and outputs of a model."""

    def __init__(self, gt_json: Path, gt_folder: Path, size: tuple[int, int], repeats: int, folder: str) -> None:
        content = json.loads(gt_json.read_text(encoding="utf-8"))
        self.categories = PanopticCategories(content["categories"])
        maps = {a["file_name"]: read_panoptic_png(str(gt_folder / a["file_name"])) for a in content["annotations"]}
        chosen = [a for a in content["annotations"] if maps[a["file_name"]].shape == size]
        if not chosen:
            raise SystemExit(f"{gt_json} has no image of {size[0]}×{size[1]} px.")
        annotations = [{**a, "image_id": i} for i, a in enumerate(chosen * repeats)]
        self.gt_json, self.gt_folder = os.path.join(folder, "gt.json"), str(gt_folder)
        Path(self.gt_json).write_text(
            json.dumps({"categories": content["categories"], "annotations": annotations}), encoding="utf-8"
        )
        self.inputs = [{"image_id": a["image_id"], "file_name": f"{a['image_id']}.jpg"} for a in annotations]
        self.outputs = [self._predict(maps[a["file_name"]], a["segments_info"], a["image_id"]) for a in annotations]
        entry = MetadataCatalog.get(DATASET)
        entry.set(panoptic_json=self.gt_json, panoptic_root=self.gt_folder, **self.categories.metadata())

    def _predict(self, gt: np.ndarray, segments: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        moved = np.roll(gt, rng.integers(-8, 9, 2), (0, 1))
        panoptic_seg = np.zeros(gt.shape, np.int32)
        infos: list[dict[str, Any]] = []
        for segment in segments:
            mask = moved == segment["id"]
            if not segment["iscrowd"] and mask.any() and rng.random() > 0.1:
                id_, isthing = len(infos) + 1, self.categories.isthing(segment["category_id"])
                panoptic_seg[mask] = id_
                category_id = self.categories.category_id(segment["category_id"])
                infos.append({"id": id_, "category_id": category_id, "isthing": isthing})
        return {"panoptic_seg": (torch.from_numpy(panoptic_seg), infos)}


def _run_detectron2(data: Data, outputs: Outputs) -> float:
    evaluator = COCOPanopticEvaluator(DATASET)
    evaluator.reset()
    evaluator.process(data.inputs, outputs)
    return float(evaluator.evaluate()["panoptic_seg"]["PQ"])


def _run_ours(data: Data, decoder: str, outputs: Outputs) -> float:
    return _evaluate(PanopticQualityEvaluator(DATASET, png_decoder=decoder), data, outputs)


def _evaluate(evaluator: PanopticQualityEvaluator, data: Data, outputs: Outputs) -> float:
    evaluator.reset()
    evaluator.process(data.inputs, outputs)
    results = evaluator.evaluate()
    assert results is not None
    return float(results["panoptic_seg"]["PQ"])


def _run_hotcoco(data: Data, outputs: Outputs) -> float:
    """It reads files, so the outputs become PNGs in the cheapest way: OpenCV at its fastest level."""
    from hotcoco.panoptic import pq_compute

    annotations = []
    with tempfile.TemporaryDirectory() as folder:
        for input_, output in zip(data.inputs, outputs, strict=True):
            panoptic_seg, infos = output["panoptic_seg"]
            name = f"{input_['image_id']}.png"
            cv2.imwrite(f"{folder}/{name}", id2rgb(panoptic_seg.numpy())[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            segments = [
                {"id": s["id"], "category_id": data.categories.dataset_id(s["category_id"], s["isthing"])}
                for s in infos
            ]
            annotations.append({"image_id": input_["image_id"], "file_name": name, "segments_info": segments})
        Path(f"{folder}/predictions.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
        result = pq_compute(data.gt_json, f"{folder}/predictions.json", data.gt_folder, folder)
    return 100 * float(result["All"]["pq"])


def peers(data: Data) -> dict[str, Run]:
    """What is compared, by name."""
    cached = PanopticQualityEvaluator(DATASET, gt_cache_bytes=CACHE_BYTES)
    _evaluate(cached, data, data.outputs)
    fastest = next(iter(png_decoders()))
    result: dict[str, Run] = {"detectron2": partial(_run_detectron2, data)}
    try:
        import hotcoco  # noqa: F401

        result["hotcoco"] = partial(_run_hotcoco, data)
    except ImportError:
        print("hotcoco is not installed (pip install hotcoco): left out.")
    for decoder in ["pillow", "opencv", *([fastest] if fastest != "opencv" else [])]:
        result[f"ours, {decoder}"] = partial(_run_ours, data, decoder)
    explaining = PanopticQualityEvaluator(DATASET, explain=True)
    result[WITH_CAUSES] = partial(_evaluate, explaining, data)
    result["ours, ground truth cached"] = partial(_evaluate, cached, data)
    return result


def measure(runs: dict[str, Run], outputs: Outputs, rounds: int) -> dict[str, dict[str, Any]]:
    """CPU milliseconds an image of every peer, by turns; all must give the same PQ to 1e-9 of a percent."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    quality = {}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            own = copy.deepcopy(outputs)  # detectron2's changes them
            with contextlib.redirect_stdout(io.StringIO()):
                start = time.process_time()
                quality[name] = run(own)
                times[name].append(1e3 * (time.process_time() - start) / len(outputs))
    if max(quality.values()) - min(quality.values()) > 1e-9:
        raise SystemExit(f"The evaluators disagree: {quality}")
    return {
        name: {
            "cpu_ms": statistics.median(t[1:]),
            "min": min(t[1:]),
            "max": max(t[1:]),
            "pq": quality[name],
            "rounds": t[1:],
        }
        for name, t in times.items()
    }


def cost_of_causes(results: dict[str, dict[str, Any]]) -> float:
    """How many times as long the evaluator takes that explains too: median of the rounds, each beside its neighbour."""
    plain = results[f"ours, {next(iter(png_decoders()))}"]["rounds"]
    return statistics.median(b / a for a, b in zip(plain, results[WITH_CAUSES]["rounds"], strict=True))


def measure_hold_up(data: Data, model_ms: float) -> dict[str, float]:
    """Wall milliseconds an image inside ``process``, between forwards of a model that takes ``model_ms``."""
    evaluator = PanopticQualityEvaluator(DATASET)
    evaluator.reset()
    waits = []
    for input_, output in zip(data.inputs, data.outputs, strict=True):
        time.sleep(model_ms / 1e3)
        start = time.perf_counter()
        evaluator.process([input_], [output])
        waits.append(1e3 * (time.perf_counter() - start))
    evaluator.evaluate()
    cuts = statistics.quantiles(waits, n=20)
    return {"model_ms": model_ms, "mean_ms": statistics.mean(waits), "median_ms": cuts[9], "p95_ms": cuts[-1]}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown rows with the ratios to the peers."""
    rivals = [name for name in ("detectron2", "hotcoco") if name in results]
    lines = ["| evaluator | CPU ms an image | spread |" + "".join(f" {r} ÷ it |" for r in rivals)]
    lines.append("|---|---|---|" + "---|" * len(rivals))
    for name, result in results.items():
        ratios = "".join(f" {results[r]['cpu_ms'] / result['cpu_ms']:.1f} |" for r in rivals)
        lines.append(f"| {name} | {result['cpu_ms']:.2f} | {result['min']:.2f} – {result['max']:.2f} |{ratios}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print; see ``--help``."""
    parser = command_parser(__doc__, "python projects/benchmark/panoptic_quality.py PANOPTIC.json PNG_FOLDER")
    parser.add_argument("gt_json", type=Path, help="COCO panoptic JSON")
    parser.add_argument("gt_folder", type=Path, help="its PNGs")
    parser.add_argument("--size", type=whole(1), nargs=2, default=(480, 640), metavar=("H", "W"), help="images to take")
    parser.add_argument("--repeats", type=whole(1), default=10, help="how often each image occurs")
    parser.add_argument("--rounds", type=whole(1), default=9)
    parser.add_argument("--model-ms", type=real(0), default=20, help="pause between images for the hold-up")
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.disable(logging.INFO)
    # One process: panopticapi's pool would only add the cost of its processes.
    panopticapi.evaluation.pq_compute_multi_core = lambda *a: panopticapi.evaluation.pq_compute_single_core(0, *a)
    with tempfile.TemporaryDirectory() as folder:
        data = Data(args.gt_json, args.gt_folder, tuple(args.size), args.repeats, folder)
        results = measure(peers(data), data.outputs, args.rounds)
        hold_up = measure_hold_up(data, args.model_ms)
    print(f"{len(data.inputs)} images of {args.size[0]}×{args.size[1]}, {args.rounds} rounds\n\n{table(results)}\n")
    print(f"The causes of errors take the evaluator {cost_of_causes(results):.2f} times as long.")
    print("Model held up for {mean_ms:.2f} ms an image (median {median_ms:.2f}, p95 {p95_ms:.2f}).".format(**hold_up))
    if args.json:
        report = {
            "images": len(data.inputs),
            "cpu": results,
            "hold_up": hold_up,
        }
        write_report(args.json, report, more_packages=PACKAGES)


if __name__ == "__main__":
    run_command(main)
