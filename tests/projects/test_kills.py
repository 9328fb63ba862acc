"""Real processes that are killed at random moments and resumed end with the weights and figures of undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bad_input_data import CONFIG, OPTS, REPOSITORY, TinyDataset

TRAIN_NET = REPOSITORY / "projects/panoptic_fpn/train_net.py"
LAZY_TRAIN_NET = REPOSITORY / "projects/panoptic_fpn/lazyconfig_train_net.py"
LAZY_CONFIG = REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"
KILLS = int(os.environ.get("PANOPTIC_FPN_EXT_KILLS", "2"))
ITERATIONS = 12


def _yacs(dataset: TinyDataset, output: Path) -> list[str]:
    command = [sys.executable, str(TRAIN_NET), "--config-file", str(CONFIG), "--resume"]
    command += ["--register", *dataset.registration("tiny"), *OPTS, "OUTPUT_DIR", str(output)]
    command += ["SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.CHECKPOINT_PERIOD", "2", "DATALOADER.NUM_WORKERS", "1"]
    return [*command, "SOLVER.CHECKPOINTS_TO_KEEP", "2"]


def _lazy(dataset: TinyDataset, output: Path) -> list[str]:
    command = [sys.executable, str(LAZY_TRAIN_NET), "--config-file", str(LAZY_CONFIG), "--resume"]
    command += ["--register", *dataset.registration("tiny"), "model.roi_heads.num_classes=0", "train.seed=3"]
    command += ["model.sem_seg_head.num_classes=0", f"train.output_dir={output}", f"train.max_iter={ITERATIONS}"]
    command += ["dataloader.train.total_batch_size=1", "dataloader.train.num_workers=0", "train.device=cpu"]
    return [*command, "train.checkpointer.period=2"]


def _run(command: list[str], kill_after: float | None = None, begun: Path | None = None) -> int:
    """Exit status; with ``kill_after`` the process is killed so many seconds after ``begun`` is there."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if kill_after is not None and begun is not None:
            before = begun.stat().st_mtime if begun.exists() else 0.0
            while process.poll() is None and not (begun.exists() and begun.stat().st_mtime > before):
                time.sleep(0.02)
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("command", [_yacs, _lazy])
def test_kills_at_random_moments(command, tmp_path: Path):
    draw = random.Random(os.getpid())
    dataset = TinyDataset(tmp_path / "tiny", num=3)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    delays = [draw.uniform(0, 1.0) for _ in range(KILLS)]
    for delay in delays:
        if _run(command(dataset, killed), delay, killed / "metrics.json") == 0:
            break
    for output in (killed, undisturbed):
        assert _run(command(dataset, output)) == 0
    weights = [torch.load(o / "model_final.pth", weights_only=True)["model"] for o in (killed, undisturbed)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items()), delays
    figures = [json.loads((o / "inference/panoptic_quality.json").read_text()) for o in (killed, undisturbed)]
    assert figures[0] == figures[1]
    assert not list(killed.glob("*.part"))
