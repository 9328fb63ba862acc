"""Real processes that are killed at random moments and resumed end with the weights and figures of undisturbed ones.

``PANOPTIC_FPN_EXT_KILLS=20`` kills that often.
"""

import os
import random
import signal
from pathlib import Path

import pytest
import torch
from bad_input_data import CONFIG, OPTS, TinyDataset
from places import REPOSITORY
from real_processes import Job, samples, weights

LAZY_CONFIG = REPOSITORY / "configs/SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"
KILLS = int(os.environ.get("PANOPTIC_FPN_EXT_KILLS", "2"))
ITERATIONS = 6 + 3 * KILLS
FIGURES = ("panoptic_quality.json", "sem_seg_confusion.json", "predictions.json")


def _yacs(dataset: TinyDataset, output: Path, workers: int = 0, *more: str) -> tuple[str, list[str]]:
    words = ["--config-file", str(CONFIG), "--resume", "--register", *dataset.registration("tiny"), *OPTS]
    words += ["OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", str(ITERATIONS), "SOLVER.CHECKPOINT_PERIOD", "2"]
    words += ["SOLVER.CHECKPOINTS_TO_KEEP", "2", "SOLVER.WARMUP_ITERS", "0", "DATALOADER.NUM_WORKERS", str(workers)]
    return "train_net.py", [*words, *more]


def _lazy(dataset: TinyDataset, output: Path, workers: int = 0) -> tuple[str, list[str]]:
    words = ["--config-file", str(LAZY_CONFIG), "--resume", "--register", *dataset.registration("tiny")]
    words += ["model.roi_heads.num_classes=0", "model.sem_seg_head.num_classes=0", "train.seed=3", "train.device=cpu"]
    words += [f"train.output_dir={output}", f"train.max_iter={ITERATIONS}", "train.checkpointer.period=2"]
    words += ["dataloader.train.total_batch_size=1", f"dataloader.train.num_workers={workers}"]
    return "lazyconfig_train_net.py", words


def _same_figures(*folders: Path) -> bool:
    return all(len({(folder / name).read_bytes() for folder in folders}) == 1 for name in FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("command", [_yacs, _lazy])
def test_kills_at_random_moments(command, tmp_path: Path):
    """In iterations, while checkpoints are written, in the evaluation at the end; with other numbers of workers, and
    with signals that end a training in its own way."""
    draw = random.Random(os.getpid())
    dataset = TinyDataset(tmp_path / "tiny", num=3)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    expected = Job(*command(dataset, undisturbed), tmp_path / "undisturbed.lines")
    assert expected.wait() == [0]
    signals = [draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]) for _ in range(KILLS)]
    moments = [(draw.randint(1, 5), draw.uniform(0, 0.5), draw.randint(1, 20), number) for number in signals]
    for number, (lines, seconds, writes, how) in enumerate(moments):
        while_writing = number % 2
        words = command(dataset, killed, number // 2 % 2)
        job = Job(*words, tmp_path / "killed.lines", dies_at=writes if while_writing else 0)
        if (job if while_writing else job.kill(lines, seconds, how)).wait() == [0]:
            break
    job = Job(*command(dataset, killed), tmp_path / "killed.lines")
    assert job.wait() == [0]
    assert samples(job.lines()) == samples(expected.lines()), moments
    found, ours = weights(undisturbed), weights(killed)
    assert all(torch.equal(ours[name], value) for name, value in found.items()), moments
    assert _same_figures(killed / "inference", undisturbed / "inference")
    assert not list(killed.glob("*.part"))


@pytest.mark.slow
def test_kills_in_an_evaluation(tmp_path: Path):
    """``--eval-only --resume`` does no image twice but the one in which it was killed, and ends with the same bytes."""
    dataset = TinyDataset(tmp_path / "tiny", num=4 + 2 * KILLS)
    output, lines = tmp_path / "output", tmp_path / "lines"
    script, words = _yacs(dataset, output)
    assert Job(script, [*words, "SOLVER.MAX_ITER", "1"], tmp_path / "trained.lines").wait() == [0]
    evaluate = [script, ["--eval-only", *words]]
    for number in range(KILLS):
        Job(*evaluate, lines).kill(1 + number % 2, 0.01 * number).wait()
    job = Job(*evaluate, lines)
    assert job.wait() == [0]
    ids = [one for _, _, batch in job.lines() for one in batch]
    assert set(ids) == set(range(1, 5 + 2 * KILLS)) and len(ids) <= len(set(ids)) + KILLS
    assert _same_figures(output / "inference", output / "inference_2")
