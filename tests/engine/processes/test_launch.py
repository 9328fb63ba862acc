"""Jobs of several processes, by whoever has started them."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from bad_input_data import CONFIG, OPTS, TinyDataset
from places import REPOSITORY

from panoptic_fpn_ext.engine.output_folder import hold_output_folder, is_at_work
from panoptic_fpn_ext.engine.processes import launch
from panoptic_fpn_ext.engine.processes.rendezvous import find_rendezvous, first_host

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "GROUP_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
TASK = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_NODEID": "1", "SLURM_NODELIST": "gpu[07-09],x"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu8", "SLURM_PROCID": "0"}
JOB = REPOSITORY / "tests/engine/processes/launched.py"
TRAIN_NET = REPOSITORY / "projects/panoptic_fpn/train_net.py"


def test_torchrun_is_found():
    assert find_rendezvous(TORCHRUN)[:5] == ("torchrun", 1, 4, "0", "env://")
    assert find_rendezvous({**TASK, **TORCHRUN}).launcher == "torchrun"
    assert find_rendezvous({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    assert find_rendezvous({}) is find_rendezvous({"WORLD_SIZE": "2"}) is None
    with pytest.raises(ValueError, match="MASTER_PORT not"):
        find_rendezvous({k: v for k, v in TORCHRUN.items() if k != "MASTER_PORT"})
    with pytest.raises(ValueError, match="rank 4 of 4"):
        find_rendezvous({**TORCHRUN, "RANK": "4"})


def test_slurm_is_found():
    assert find_rendezvous({**TASK, "MASTER_PORT": "5"}) == ("srun", 3, 4, "1", "tcp://gpu07:5", False, True)
    step = find_rendezvous({**TASK, **STEP})  # of an allocation of four
    assert (step.rank, step.world_size, step.is_certain) == (0, 2, True) and step.url.startswith("tcp://gpu8:")
    assert step.url == find_rendezvous({**TASK, **STEP, "SLURM_PROCID": "1"}).url
    assert step.url != find_rendezvous({**TASK, **STEP, "SLURM_STEP_ID": "1"}).url
    assert find_rendezvous({**TASK, **STEP, "SLURM_STEP_RESV_PORTS": "12000-12003"}).url == "tcp://gpu8:12000"
    assert find_rendezvous({**TASK, **STEP, "MASTER_ADDR": "b"}).url.startswith("tcp://b:")


def test_allocations_without_srun_run_alone(caplog):
    for shell in ({"SLURM_NTASKS": "4"}, {**TASK, "SLURM_PROCID": "0", "SLURM_TASK_PID": "7"}):  # salloc, sbatch
        caplog.clear()
        assert find_rendezvous(shell) is None
        assert "SLURM counts 4 tasks, but srun has not started this process: it runs alone" in caplog.text
    assert find_rendezvous({**TASK, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
    assert not find_rendezvous({**TASK, "SLURM_PROCID": "0"}).is_certain


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a1", "a1"), ("a[1-3]", "a1"), ("a[07,9],b", "a07"), ("r[2-3]n[04-05]", "r2n04"), ("x,y[1-2]", "x")],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first


def test_one_task_that_nobody_joins_runs_alone(monkeypatch, caplog):
    """Where SLURM's variables leave open whether there are others."""
    for name, value in {**TASK, "SLURM_PROCID": "0", "SLURM_NODELIST": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "UNCERTAIN_TIMEOUT", launch.timedelta(seconds=1))
    seen = []
    launch.launch_from_arguments(seen.append, Namespace(num_gpus=1, num_machines=1))
    assert len(seen) == 1 and "no other has come within 1 s" in caplog.text


def test_several_machines_need_an_address():
    args = Namespace(num_gpus=1, num_machines=2, machine_rank=0, dist_url="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="--dist-url tcp://HOST:PORT"):
        launch.launch_from_arguments(print, args)


@pytest.mark.parametrize(
    ("gpus", "machines", "option"), [(0, 1, "--num-gpus"), (-1, 1, "--num-gpus"), (1, 0, "--num-machines")]
)
def test_a_job_has_a_process(gpus, machines, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got"):
        launch.launch_from_arguments(print, Namespace(num_gpus=gpus, num_machines=machines))


def test_an_output_folder_has_one_run(tmp_path):
    """Until it ends, even by SIGKILL; the run itself may ask again."""
    folder = str(tmp_path / "output")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        hold_output_folder(folder)
        hold_output_folder(folder)
        os.write(writing, b"1")
        time.sleep(600)
    os.read(reading, 1)
    assert is_at_work(folder)
    with pytest.raises(ValueError, match=rf"A run is at work in {folder}, process {child} on "):
        hold_output_folder(folder)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_at_work(folder)
    hold_output_folder(folder)
    assert f"process {os.getpid()} on" in Path(folder, ".lock").read_text()


def _torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options]


def _start(command: list[str], **environment: str) -> subprocess.Popen:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path, **environment}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _srun(count: int, command: list[str], nodes: int = 1) -> list[subprocess.Popen]:
    """What ``srun -n count`` does, on this machine."""
    every = {"SLURM_NTASKS": str(count), "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NODELIST": "localhost"}
    every |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0"}
    return [
        _start(command, **every, SLURM_PROCID=str(i), SLURM_NODEID=str(i * nodes // count), SLURM_LOCALID="0")
        for i in range(count)
    ]


def _end(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit codes and what was written to stderr."""
    try:
        ended = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, ended, strict=True)]


@pytest.mark.slow
def test_all_processes_end_when_one_fails(tmp_path):
    """Where the others wait for something else; one line says why, for all the ways to start a job."""
    ((code, text),) = _end([_start([sys.executable, str(JOB), "--num-gpus", "2", str(tmp_path), "raise"])])
    assert (code, text.splitlines()[-1]) == (2, "error: what rank 1 lacks")
    results = _end(_srun(2, [sys.executable, str(JOB), str(tmp_path), "raise"], nodes=2))
    assert [code for code, _ in results] == [1, 2]
    lines = [text.splitlines()[-1] for _, text in results]
    assert lines[0].startswith("Process 0 of 2 ends: process 1 on ") and lines[0].endswith("'what rank 1 lacks'")
    assert lines[1] == "error: what rank 1 lacks"


@pytest.mark.slow
def test_a_mistake_that_all_processes_see_is_said_once(tmp_path):
    ((code, text),) = _end([_start([sys.executable, str(JOB), "--num-gpus", "2", str(tmp_path), "all raise"])])
    assert (code, text.splitlines()) == (2, ["error: what rank 1 lacks"])


@pytest.mark.slow
def test_a_killed_process_ends_its_job(tmp_path):
    ((code, text),) = _end([_start([sys.executable, str(JOB), "--num-gpus", "2", str(tmp_path), "kill"])])
    assert code == 1 and "Process 1 of 2 was ended by SIGKILL" in text.splitlines()[-1]


@pytest.mark.slow
def test_torchrun_restarts_a_failed_job_from_its_checkpoint(tmp_path):
    """Two machines of a process each; what the first attempt leaves does not disturb the second."""
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", str(os.getpid())]
    options += ["--rdzv-endpoint", f"127.0.0.1:{20000 + os.getpid() % 10000}", "--max-restarts", "2"]
    results = _end([_start([*_torchrun(*options), str(JOB), str(tmp_path), "raise"]) for _ in range(2)])
    assert [code for code, _ in results] == [0, 0], results
    assert [(tmp_path / f"rank_{i}").read_text() for i in range(2)] == ["0 of 1, 3, True"] * 2


@pytest.mark.slow
def test_every_launcher_trains_the_same_network(tmp_path):
    """Bit by bit, for the same number of processes; a torchrun that is told the number twice is refused."""
    data = TinyDataset(tmp_path)

    def command(name: str, *more: str) -> list[str]:
        found = [str(TRAIN_NET), *more, "--config-file", str(CONFIG), "--register", *data.registration("launched")]
        found += [*OPTS, "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0"]
        datasets = ["DATASETS.TRAIN", "('launched',)", "DATASETS.TEST", "('launched',)"]
        return [*found, *datasets, "OUTPUT_DIR", str(tmp_path / name)]

    jobs = {
        "here": [_start([sys.executable, *command("here", "--num-gpus", "2")])],
        "torchrun": [_start([*_torchrun("--nproc-per-node", "2"), *command("torchrun")])],
        "srun": _srun(2, [sys.executable, *command("srun")], nodes=2),
    }
    weights = {}
    for name, processes in jobs.items():
        results = _end(processes)
        assert {code for code, _ in results} == {0}, results
        weights[name] = torch.load(tmp_path / name / "model_final.pth", weights_only=False)["model"]
    for name in ("torchrun", "srun"):
        assert all(torch.equal(weights[name][key], value) for key, value in weights["here"].items()), name
    twice = _start([*_torchrun("--nproc-per-node", "2"), *command("twice", "--num-gpus", "2")])
    ((code, text),) = _end([twice])
    assert code == 1 and text.count("leave out --num-gpus") == 1
