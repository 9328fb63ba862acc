"""A training that goes on with more or fewer processes sees the same images and ends with the same weights, nearly."""

from pathlib import Path

import pytest
from bad_input_data import CONFIG, OPTS, TinyDataset
from real_processes import Job, samples, weights

TOLERANCE = 1e-3  # of a tensor's norm, as docs/safety.md says; it was 3e-5


@pytest.mark.slow
def test_one_process_two_and_one_again(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "tiny", num=5)
    # Batch norms see the images of one process alone.
    words = ["--config-file", str(CONFIG), "--resume", "--register", *dataset.registration("tiny"), *OPTS]
    words += ["SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0"]
    words += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "MODEL.RESNETS.NORM", "FrozenBN"]
    expected = Job("train_net.py", [*words, "OUTPUT_DIR", str(tmp_path / "one")], tmp_path / "one.lines")
    assert expected.wait() == [0]
    command, lines = ("train_net.py", [*words, "OUTPUT_DIR", str(tmp_path / "mixed")]), tmp_path / "mixed.lines"
    Job(*command, lines).kill(3).wait()
    Job(*command, lines, processes=2).kill(5).wait()
    job = Job(*command, lines)
    assert job.wait() == [0]
    assert {rank for _, rank, _ in job.lines()} == {0, 1}
    assert samples(job.lines()) == samples(expected.lines())
    found, ours = weights(tmp_path / "one"), weights(tmp_path / "mixed")
    for name, value in found.items():
        assert (ours[name] - value).norm() <= TOLERANCE * value.norm(), name
