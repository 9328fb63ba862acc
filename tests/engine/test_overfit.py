"""``--overfit N``: a sound pipeline learns a few images by heart; a class that cannot be learnt is named."""

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from bad_input_data import TinyDataset, project_script, train_net_args
from PIL import Image
from places import REPOSITORY

from panoptic_fpn_ext.engine import argument_parser
from panoptic_fpn_ext.engine.overfit import prepare_overfit
from panoptic_fpn_ext.engine.setup import read_config
from panoptic_fpn_ext.engine.training.learnt_classes import StopWhenLearnt, verdict
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

# Learnt in a few dozen iterations.
FAST = ("SOLVER.MAX_ITER", "250", "SOLVER.BASE_LR", "0.002", "SOLVER.WARMUP_ITERS", "10", "SOLVER.OPTIMIZER", "ADAMW")

pytestmark = pytest.mark.usefixtures("restored_state")


def _args(dataset: TinyDataset, output: Path, *extra: str, images: int = 1) -> argparse.Namespace:
    args = train_net_args(dataset, "tiny_overfit", output, *extra)
    args.overfit = images
    return args


def _status(args: argparse.Namespace) -> int:
    with pytest.raises(SystemExit) as ended:
        project_script("panoptic_fpn/train_net.py").main(args)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _without_boxes(dataset: TinyDataset) -> None:
    """Each category in a colour of its own, and balls as the only things."""
    for number, annotation in enumerate(dataset.content["annotations"], start=1):
        ids = read_panoptic_png(str(dataset.png(number)))
        ids[ids == 4] = 7
        write_panoptic_png(str(dataset.png(number)), ids)
        colors = np.zeros((10, 3), np.uint8)
        colors[[1, 7, 9]] = (230, 30, 30), (30, 160, 30), (220, 220, 220)
        Image.fromarray(colors[ids]).save(dataset.image(number), quality=95)
        annotation["segments_info"] = [{"id": i, "category_id": i} for i in (1, 7, 9)]
    dataset.save()


@pytest.mark.slow
def test_a_sound_pipeline_learns_its_images(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data", num=3)
    _without_boxes(dataset)
    assert _status(_args(dataset, tmp_path / "out", *FAST)) == 0
    log = (tmp_path / "out" / "overfit" / "log.txt").read_text()
    assert "The pipeline is sound" in log
    assert len(json.loads((tmp_path / "out" / "overfit" / "panoptic.json").read_text())["images"]) == 1


def test_what_is_not_learnt_is_named(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data", num=3)
    few = ("SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "1e-6")
    assert _status(_args(dataset, tmp_path / "out", *few, images=9)) == 1
    log = (tmp_path / "out" / "overfit" / "log.txt").read_text()
    assert "Not learnt in 2 iterations: " in log and "ball" in log.split("Not learnt")[1]
    assert "never predicted" in log
    assert len(json.loads((tmp_path / "out" / "overfit" / "panoptic.json").read_text())["images"]) == 3
    assert _status(_args(dataset, tmp_path / "out", *few)) == 1  # a second time, and what it finds there stays
    assert (tmp_path / "out" / "overfit_2" / "panoptic.json").is_file()


@pytest.mark.parametrize("extra", [("--resume",), ("--eval-only",)])
def test_what_overfitting_does_not_go_with(tmp_path: Path, extra: tuple[str, ...]):
    dataset = TinyDataset(tmp_path / "data")
    with pytest.raises(ValueError, match="goes without --eval-only and --resume"):
        project_script("panoptic_fpn/train_net.py").main(_args(dataset, tmp_path / "out", *extra))
    with pytest.raises(ValueError, match="at least one image"):
        project_script("panoptic_fpn/train_net.py").main(_args(dataset, tmp_path / "out", images=0))


@pytest.fixture
def default_interrupt():
    """A shell that starts its tests in the background has SIGINT ignored in them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_an_interruption_ends_it_at_once_and_suggests_nothing_that_is_refused(tmp_path: Path, monkeypatch):
    dataset = TinyDataset(tmp_path / "data")
    ended = []

    def interrupt(*_) -> None:
        ended.append(True)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StopWhenLearnt, "after_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        project_script("panoptic_fpn/train_net.py").main(_args(dataset, tmp_path / "out"))
    assert ended == [True]
    assert "--resume" not in (tmp_path / "out" / "overfit" / "log.txt").read_text()


LAZY = REPOSITORY / "configs/User-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"


def _lazy_args(dataset: TinyDataset, output: Path, *extra: str) -> argparse.Namespace:
    words = ["--config-file", str(LAZY), "--register", *dataset.registration("tiny_lazily")]
    sizes = [f"dataloader.{part}.mapper.augmentations.0.short_edge_length=48" for part in ("train", "test")]
    args = argument_parser().parse_args([*words, *sizes, f"train.output_dir={output}", *extra])
    args.overfit = 1
    return args


def test_lazy_configs_overfit_too(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data")
    few = ("train.max_iter=2", "dataloader.train.total_batch_size=1", "optimizer.lr=1e-6")
    with pytest.raises(SystemExit) as ended:
        project_script("panoptic_fpn/lazyconfig_train_net.py").main(_lazy_args(dataset, tmp_path / "out", *few))
    assert ended.value.code == 1
    log = (tmp_path / "out" / "overfit" / "log.txt").read_text()
    assert "Not learnt in 2 iterations: " in log and "ball" in log.split("Not learnt")[1]
    assert len(json.loads((tmp_path / "out" / "overfit" / "panoptic.json").read_text())["images"]) == 1


def _row(name: str, pq: float | None, tp: int = 1) -> dict:
    return {"name": name, "isthing": True, "pq": pq, "tp": tp, "fp": 1, "fn": 3 - tp}


def test_what_still_rises_is_not_called_a_fault():
    figures = {
        "ball": [0, 0.1, 0.2, 0.3, 0.4, 0.45],
        "box": [0, 0.3, 0.31, 0.3, 0.32, 0.3],
        "sky": [0, 0, 0, 0, 0, 0.9],
    }
    history = {10 * (i + 1): [_row(name, pqs[i]) for name, pqs in figures.items()] for i in range(6)}
    text = verdict(history)
    assert "Not learnt in 60 iterations: box, ball." in text
    assert "Still rising, so nothing is shown: ball." in text and "Not rising: box." in text
    assert "The pipeline is sound" in verdict({60: [_row("ball", 0.5)]})


def test_images_without_a_segment_that_counts_are_not_learnt(tmp_path: Path):
    watch = StopWhenLearnt(str(tmp_path), 1)
    with pytest.raises(ValueError, match="evaluator does not write"):
        watch.read(1)
    (tmp_path / "inference").mkdir()
    content = {"per_class": [{"name": "ball", "tp": 0, "fn": 0, "fp": 3, "pq": 0.0}]}
    (tmp_path / "inference/panoptic_quality.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no segment that counts"):
        watch.read(1)


@pytest.mark.parametrize(
    "name", ["COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "Cityscapes-PanopticSegmentation/panoptic_fpn_R_50"]
)
def test_the_rate_is_reached_early(name: str):
    args = argparse.Namespace(overfit=4, eval_only=False, resume=False, opts=["MODEL.WEIGHTS", ""])
    prepare_overfit(args)
    solver = read_config(f"configs/{name}.yaml", args.opts).SOLVER
    assert (solver.MAX_ITER, solver.WARMUP_ITERS) == (600, 30)
