"""Where the processes of a job meet, when torchrun or SLURM has started them."""

import logging
import re
import socket
import zlib
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Rendezvous", "find_rendezvous", "first_host"]

logger = logging.getLogger(__name__)

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# SLURM's variables, those of the job step first: in a step of a larger allocation the others may speak of all of it.
_TASKS = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
_NODES = ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
# Below the ports that Linux gives to outgoing connections.
_PORTS = range(15000, 30000)


class Rendezvous(NamedTuple):
    """One process of a job of several.

    ``launcher``: who has started it, for messages. ``node``: the same for all processes of one machine. ``url``: as for
    `torch.distributed.init_process_group`. ``is_hosted``: whoever starts the processes keeps the store at ``url``;
    else process 0 does. ``is_certain``: False where the other processes may not exist at all.
    """

    launcher: str
    rank: int
    world_size: int
    node: str
    url: str
    is_hosted: bool = False
    is_certain: bool = True


def find_rendezvous(environment: Mapping[str, str]) -> Rendezvous | None:
    """What torchrun (or who else sets ``RANK``, ``WORLD_SIZE`` and ``MASTER_*``) or SLURM says of this process.

    Returns:
        None for a process that stands alone.

    Raises:
        ValueError: variables that are missing or no ranks.
    """
    found = _of_torchrun(environment) or _of_slurm(environment)
    if found is not None and not 0 <= found.rank < found.world_size:
        raise ValueError(f"{found.launcher} gave this process the rank {found.rank} of {found.world_size} processes.")
    return None if found is None or found.world_size == 1 else found


def _of_torchrun(environment: Mapping[str, str]) -> Rendezvous | None:
    if not {"RANK", "WORLD_SIZE"} <= set(environment):
        return None
    missing = [name for name in _TORCHRUN if name not in environment]
    if missing and int(environment["WORLD_SIZE"]) > 1:
        raise ValueError(
            f"RANK and WORLD_SIZE are set, but {' and '.join(missing)} not: "
            "start the processes with torchrun, or unset RANK and WORLD_SIZE to run one."
        )
    rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    return Rendezvous("torchrun", rank, world_size, environment.get("GROUP_RANK", socket.gethostname()), "env://")


def _of_slurm(environment: Mapping[str, str]) -> Rendezvous | None:
    """A task of ``srun``; None in the shell of ``salloc`` and in the script of ``sbatch``, which run once only."""
    tasks = int(_first(environment, _TASKS) or 1)
    if tasks == 1:
        return None
    rank = int(environment.get("SLURM_PROCID", 0))
    is_step = any(name.startswith("SLURM_STEP") for name in environment)
    # A batch script has a task's variables but no step's; there is one, and it has the rank 0.
    if "SLURM_PROCID" not in environment or (rank == 0 and not is_step and "SLURM_TASK_PID" in environment):
        logger.warning(f"SLURM counts {tasks} tasks, but srun has not started this process: it runs alone.")
        return None
    nodes = _first(environment, _NODES)
    host = environment.get("MASTER_ADDR") or (first_host(nodes) if nodes else "127.0.0.1")
    port = environment.get("MASTER_PORT") or _free_for_this_step(environment)
    node = environment.get("SLURM_NODEID", socket.gethostname())
    return Rendezvous("srun", rank, tasks, node, f"tcp://{host}:{port}", is_certain=is_step or rank > 0)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)


def _free_for_this_step(environment: Mapping[str, str]) -> int:
    """A port that all tasks of a step find, and hardly those of another."""
    if reserved := environment.get("SLURM_STEP_RESV_PORTS"):
        return int(re.split("[-,]", reserved)[0])
    step = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    return _PORTS[zlib.crc32(step.encode()) % len(_PORTS)]


def first_host(nodes: str) -> str:
    """First host of SLURM's short form: ``rack1-gpu[07-09,12],login`` begins with ``rack1-gpu07``."""
    without_lists = re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes)
    return without_lists.split(",")[0]
