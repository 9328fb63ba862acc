"""Several processes: the same bits, one error for all, nobody left waiting."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from oracles_pq import CATEGORIES, panopticapi_results, random_image, write_coco

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.engine.processes.launch import end_process_groups
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.panoptic_quality import MATCH_DTYPE, ImageCounts
from panoptic_fpn_ext.evaluation.records import ImageRecords, fold_records
from panoptic_fpn_ext.panoptic_png import read_panoptic_png

TABLE = PanopticCategories(CATEGORIES)
NUM_IMAGES = 24
TIMEOUT_S = 300


def test_records_fold_in_the_order_of_the_ground_truth():
    """Sums that depend on their order: 1 + 2⁻⁵³ + 2⁻⁵³ is 1 from the left, and more than 1 from the right."""
    ious = [1.0, 2.0**-53, 2.0**-53]
    one_by_one = [_record(range(3), ious)]
    turned = [_record([2], ious[2:]), ImageRecords(), _record([1, 0], ious[1::-1])]
    for records in (one_by_one, turned):
        counts = fold_records(records, TABLE)
        assert counts.iou_sum[0] == 1.0 and counts.tp[0] == 3
    assert fold_records([_record(range(3), ious[::-1])], TABLE).iou_sum[0] > 1.0


def _record(positions: Any, ious: list[float]) -> ImageRecords:
    records, nothing = ImageRecords(), np.empty(0, np.int64)
    for position, iou in zip(positions, ious, strict=True):
        records.add(position, ImageCounts(np.array([(0, iou)], MATCH_DTYPE), nothing, nothing, 0))
    return records


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_bits(world_size: int, tmp_path: Path):
    files = _write(tmp_path)
    outcomes = [outcome["none"] for outcome in _launch(world_size, tmp_path, ["none"])]
    assert [outcome["error"] for outcome in outcomes] == [None] * world_size
    assert outcomes[0]["results"]["panoptic_seg"] == _in_percent(panopticapi_results(*files))
    assert [outcome["results"] for outcome in outcomes[1:]] == [None] * (world_size - 1)
    written = json.loads((tmp_path / "none" / "predictions.json").read_text())["annotations"]
    assert sorted(a["image_id"] for a in written) == list(range(NUM_IMAGES))
    assert len(list((tmp_path / "none" / "predictions").iterdir())) == NUM_IMAGES


@pytest.mark.slow
def test_an_error_is_raised_by_all_processes(tmp_path: Path):
    _write(tmp_path)
    messages = {
        "missing": "image 1: no prediction for it",
        "duplicate": "image 0: 2 predictions for it",
        "broken": "image 1: its output cannot be read",
        "unwritable": "IsADirectoryError",
    }
    outcomes = _launch(2, tmp_path, list(messages))
    for trouble, message in messages.items():
        errors = [outcome[trouble]["error"] for outcome in outcomes]
        assert errors[0] == errors[1]
        assert message in errors[0]


def _write(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(8)
    return write_coco(folder, [random_image(rng) for _ in range(NUM_IMAGES)])


def _in_percent(results: dict[str, Any]) -> dict[str, float]:
    groups = (("All", ""), ("Things", "_th"), ("Stuff", "_st"))
    return {m.upper() + suffix: 100 * results[g][m] for g, suffix in groups for m in ("pq", "sq", "rq")}


def _launch(world_size: int, folder: Path, troubles: list[str]) -> list[dict[str, Any]]:
    """What each rank found by trouble; a rank that waits for ever fails the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.spawn(_run, (world_size, port, folder, troubles), nprocs=world_size, join=False)
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                raise TimeoutError("a process waits for ever")
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"outcomes{rank}.pt", weights_only=False) for rank in range(world_size)]


def _run(rank: int, world_size: int, port: int, folder: Path, troubles: list[str]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    MetadataCatalog.get("shared").set(
        panoptic_json=str(folder / "gt.json"), panoptic_root=str(folder / "gt"), **TABLE.metadata()
    )
    torch.save({trouble: _evaluate(folder, trouble) for trouble in troubles}, folder / f"outcomes{rank}.pt")
    end_process_groups()


def _evaluate(folder: Path, trouble: str) -> dict[str, Any]:
    evaluator = PanopticQualityEvaluator("shared", str(folder / trouble))
    annotations = json.loads((folder / "pred.json").read_text())["annotations"]
    _process(evaluator, folder, annotations[comm.get_rank() :: comm.get_world_size()], trouble)
    if trouble == "unwritable" and comm.is_main_process():
        (folder / trouble / "predictions.json").mkdir()
    try:
        return {"results": evaluator.evaluate(), "error": None}
    except (ValueError, RuntimeError) as error:
        return {"results": None, "error": str(error)}


def _process(
    evaluator: PanopticQualityEvaluator, folder: Path, annotations: list[dict[str, Any]], trouble: str
) -> None:
    """This rank's share in another order than the ground truth's; rank 1's first image, and 0, may be in trouble."""
    evaluator.reset()
    if trouble == "duplicate" and annotations[0]["image_id"] == 1:
        annotations = [*annotations, json.loads((folder / "pred.json").read_text())["annotations"][0]]
    for annotation in annotations[::-1]:
        in_trouble = annotation["image_id"] == 1
        if in_trouble and trouble == "missing":
            continue
        panoptic_seg = torch.from_numpy(read_panoptic_png(str(folder / "pred" / annotation["file_name"])))
        output: dict[str, Any] = {"panoptic_seg": (panoptic_seg, annotation["segments_info"])}
        if in_trouble and trouble == "broken":
            output = {}
        evaluator.process([{"image_id": annotation["image_id"], "file_name": annotation["file_name"]}], [output])
