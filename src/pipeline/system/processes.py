"""Which of several processes this is, where torchrun or SLURM started them, and how many cores it may use."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.system.errors import ConfigError
from pipeline.system.signals import RANK_GRACE_S


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun or srun started, on one machine or several."""

    by: str  # torchrun or srun
    rank: int
    world_size: int  # processes on all machines
    local_rank: int  # its rank on its machine
    local_world_size: int | None  # processes on its machine; srun may not say it

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank | None:
        """None if nobody started processes for this training."""
        if "TORCHELASTIC_RUN_ID" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            return cls("torchrun", *(int(environment[name]) for name in names))
        # An sbatch script has SLURM_NTASKS too, and the shell of salloc even a step, of one task.
        tasks = int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", 1)))
        if "SLURM_STEP_ID" in environment and tasks > 1:
            per_node = environment.get("SLURM_NTASKS_PER_NODE")
            rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
            return cls("srun", rank, tasks, local_rank, int(per_node) if per_node else None)
        return None


def require_processes(devices: int, num_nodes: int, rank: Rank | None) -> None:
    """Raise ConfigError unless the processes that the settings ask for were started, or can be from here.

    Args:
        devices: on each of num_nodes machines.
    """
    world_size = devices * num_nodes
    if rank and rank.world_size != world_size:
        raise ConfigError(
            f"{rank.by} started {rank.world_size} processes, but trainer.devices={devices} on "
            f"trainer.num_nodes={num_nodes} is {world_size}. Make the two agree"
        )
    if rank and rank.local_world_size != devices:
        option = "--nproc-per-node" if rank.by == "torchrun" else "--ntasks-per-node"
        raise ConfigError(
            f"{rank.by} started {rank.local_world_size or 'an unnamed number of'} processes on this machine, but "
            f"trainer.devices={devices} is the number on each: give {rank.by} {option}={devices}"
        )
    if not rank and num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}: processes on several machines are started by torchrun or srun, not "
            f"from here. On each machine: torchrun --nnodes={num_nodes} --nproc-per-node={devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 -m pipeline.train …"
        )


def mute_errors_off_rank_zero(rank: Rank | None) -> None:
    """Before an error is printed that every process of this machine meets: once is enough, by local rank zero.

    That one may be a moment behind, and torchrun ends it as soon as another has ended. If it does not end this process
    within the time, this one has an error of its own to print.
    """
    if rank and rank.local_rank > 0:
        time.sleep(RANK_GRACE_S)


def usable_cores() -> int:
    """The cores that this process may run on, where the system says so (Linux)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
