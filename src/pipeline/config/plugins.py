"""The options of our launcher and sweepers, which Hydra knows while this project composes and no longer.

So other Hydra applications have Hydra's own and those of published plug-ins (docs/decisions/0017).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from pipeline.config.allowed_targets import GRID, OPTUNA, PROCESS


@dataclass
class ProcessLauncherConf:
    _target_: str = PROCESS
    n_jobs: int | None = None  # at once; null: one a core, or one for each share of the GPUs
    threads: int | None = None  # of each job; null: cores / n_jobs
    gpus: list[int] | None = None  # to give out; null: all that are there, where the jobs use GPUs
    gpus_per_job: int | None = None  # null: trainer.devices
    timeout_s: float | None = None  # after which a job is ended and counts as failed; null: never


@dataclass
class GridSweeperConf:
    """As Hydra's own."""

    _target_: str = GRID
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


@dataclass
class OptunaSweeperConf:
    _target_: str = OPTUNA
    _recursive_: bool = False
    n_trials: int | None = None  # in all, earlier starts included; null: as many as before, 20 for a new search
    sampler: str = "tpe"  # tpe, cmaes, random, grid, qmc, nsgaii
    sampler_options: dict[str, Any] = field(default_factory=dict)  # arguments of Optuna's class
    pruner: str = "none"  # none, median, hyperband
    pruner_options: dict[str, Any] = field(default_factory=dict)
    seed: int | None = 0  # of the sampler; null: another one each time
    storage: str | None = None  # a URL, or a journal's path; null: OPTUNA_STORAGE, else in the sweep's folder
    n_jobs: int = 1  # at once under other launchers than process, which has its own hydra.launcher.n_jobs
    max_failures_in_a_row: int = 5  # after which the search gives up
    params: dict[str, Any] = field(default_factory=dict)  # key -> what to sweep, as on the command line


def _search_options() -> Any:
    options = OmegaConf.structured(OptunaSweeperConf)
    for open_ended in (options.sampler_options, options.pruner_options, options.params):
        OmegaConf.set_struct(open_ended, False)  # hydra.sweeper.sampler_options.multivariate=true needs no + in front
    return options


@contextmanager
def registered_options() -> Iterator[None]:
    """hydra/launcher=process, hydra/sweeper=basic and hydra/sweeper=optuna are ours inside; afterwards as before."""
    Plugins.instance()  # stores the options of all that are installed, the first time
    store = ConfigStore.instance()
    groups = store.repo["hydra"]
    before = {group: dict(groups[group]) for group in ("launcher", "sweeper")}
    store.store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="pipeline")
    store.store(group="hydra/sweeper", name="basic", node=GridSweeperConf, provider="pipeline")
    store.store(group="hydra/sweeper", name="optuna", node=_search_options(), provider="pipeline")
    try:
        yield
    finally:
        groups.update(before)
