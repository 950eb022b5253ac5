"""Which of several processes this is, where torchrun or SLURM started them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.schema import TrainerConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun or srun started, on one machine or several."""

    number: int
    world: int
    by: str  # torchrun or srun

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank | None:
        """None if nobody started processes for this training."""
        if "TORCHELASTIC_RUN_ID" in environment:
            return cls(int(environment["RANK"]), int(environment["WORLD_SIZE"]), "torchrun")
        if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1:
            return cls(int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]), "srun")
        return None


def world_size(cfg: TrainerConfig) -> int:
    return cfg.devices * cfg.num_nodes


def require_processes(cfg: TrainerConfig, rank: Rank | None) -> None:
    """Raise ConfigError unless the processes that the settings ask for were started, or can be from here."""
    wanted = f"trainer.devices={cfg.devices} on trainer.num_nodes={cfg.num_nodes} is {world_size(cfg)}"
    if rank and rank.world != world_size(cfg):
        raise ConfigError(f"{rank.by} started {rank.world} processes, but {wanted}. Make the two agree")
    if not rank and cfg.num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={cfg.num_nodes}: processes on several machines are started by torchrun or srun, not "
            f"from here. On each machine: torchrun --nnodes={cfg.num_nodes} --nproc-per-node={cfg.devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 -m pipeline.train …"
        )
