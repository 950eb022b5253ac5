"""Which of several processes this is, where torchrun or SLURM started them, and how the first one speaks for all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.system.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import TrainerConfig

GRACE_S = 10  # within which the other processes end after the first one


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun or srun started, on one machine or several."""

    by: str  # torchrun or srun
    number: int
    world: int  # processes on all machines
    local: int  # its number on its machine
    local_world: int | None  # processes on its machine; srun may not say it

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank | None:
        """None if nobody started processes for this training."""
        if "TORCHELASTIC_RUN_ID" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            return cls("torchrun", *(int(environment[name]) for name in names))
        # An sbatch script has SLURM_NTASKS too, and the shell of salloc even a step, of one task.
        tasks = int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", 1)))
        if "SLURM_STEP_ID" in environment and tasks > 1:
            local_world = int(environment["SLURM_NTASKS_PER_NODE"]) if "SLURM_NTASKS_PER_NODE" in environment else None
            number, local = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
            return cls("srun", number, tasks, local, local_world)
        return None


def world_size(cfg: TrainerConfig) -> int:
    return cfg.devices * cfg.num_nodes


def require_processes(cfg: TrainerConfig, rank: Rank | None) -> None:
    """Raise ConfigError unless the processes that the settings ask for were started, or can be from here."""
    wanted = f"trainer.devices={cfg.devices} on trainer.num_nodes={cfg.num_nodes} is {world_size(cfg)}"
    if rank and rank.world != world_size(cfg):
        raise ConfigError(f"{rank.by} started {rank.world} processes, but {wanted}. Make the two agree")
    if rank and rank.local_world != cfg.devices:
        option = "--nproc-per-node" if rank.by == "torchrun" else "--ntasks-per-node"
        raise ConfigError(
            f"{rank.by} started {rank.local_world or 'an unnamed number of'} processes on this machine, but "
            f"trainer.devices={cfg.devices} is the number on each: give {rank.by} {option}={cfg.devices}"
        )
    if not rank and cfg.num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={cfg.num_nodes}: processes on several machines are started by torchrun or srun, not "
            f"from here. On each machine: torchrun --nnodes={cfg.num_nodes} --nproc-per-node={cfg.devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 -m pipeline.train …"
        )


# ---------------------------------------------------------------- the first process speaks for all


def leave_the_word_to_the_first(rank: Rank | None) -> None:
    """Before an error that every process of this machine meets is told: once is enough.

    The first one may be a moment behind, and torchrun ends it as soon as another has ended. If it does not end this
    process, this one has something of its own to tell.
    """
    if rank and rank.local > 0:
        time.sleep(GRACE_S)


@contextmanager
def ending_after_the_first() -> Iterator[None]:
    """Ctrl-C and SIGTERM reach all processes: the first one ends, marks its run, and the others end because of that.

    If this one ended earlier, the first would see a broken connection instead of an interruption.
    """

    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.alarm(GRACE_S)  # whose default action is to end the process

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except PipelineError as error:
        if caught:
            raise SystemExit(128 + caught[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- a job that submitit started


@contextmanager
def signals_as_failures() -> Iterator[None]:
    """In a job of submitit, a signal ends the block as a PipelineError; elsewhere this changes nothing.

    submitit ignores SIGTERM, and of a job that exits without an exception it learns nothing: where SLURM keeps no
    accounts, the sweep would wait for ever. It shall wait if SLURM will run the job once more.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.code, int) or error.code <= 128 or _put_back_by_slurm(os.environ):
            raise
        name = signal.Signals(error.code - 128).name
        raise PipelineError(f"a job was ended by {name}; the same command again goes on with it") from error


def _put_back_by_slurm(environment: Mapping[str, str]) -> bool:
    """Whether this job is in the queue again: it was preempted, or its time was up."""
    if "SLURM_JOB_ID" not in environment:
        return False
    asked = ("scontrol", "--oneliner", "show", "job", environment["SLURM_JOB_ID"])
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    restarts = re.search(r" Restarts=(\d+)", shown)
    return restarts is not None and int(restarts[1]) > int(environment.get("SLURM_RESTART_COUNT", 0))
