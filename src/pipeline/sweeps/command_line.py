"""A sweep's command line: what it sweeps, and what makes it this sweep and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.allowed_targets import OPTUNA, PROCESS
from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, composed, initialized, parse, require_choices
from pipeline.config.overrides import swept_keys
from pipeline.config.schema import SweepConfig, TrackingConfig
from pipeline.data.card import DataCard
from pipeline.runtime.origin import DATA_CARD, code_sha256
from pipeline.sweeps.search.storage import refuse_password, storage_for_jobs
from pipeline.system.errors import ConfigError
from pipeline.system.files import sha256_of, sha256_of_json
from pipeline.system.startup import load

if TYPE_CHECKING:
    from pipeline.sweeps.search.options import Search

# Where and how jobs run, and how many there will be, does not make it another sweep.
UNIDENTIFYING = (
    "sweep.", "tracking.", "hydra.launcher.", "hydra/launcher", "hydra.sweep.", "hydra.sweeper.n_trials",
    "hydra.sweeper.n_jobs", "hydra.sweeper.storage", "hydra.sweeper.max_failures_in_a_row",
)  # fmt: skip
SEARCHED = ("sweep.objectives=", "sweep.seeds=")  # but these say what a trial of a search is
RESUME = re.compile(r"^sweep\.resume=([0-9a-z]+)$")  # the beginning of a run's id may look like a number: 4e16
MANAGED = tuple(f"sweep.{key}." for key in ("parent", "varied", "job", "study", "storage", "trial"))


@dataclass(frozen=True)
class Command:
    """A sweep's command line, and what it says about the sweep itself."""

    overrides: tuple[str, ...]  # without -m
    cfg: SweepConfig
    tracking: TrackingConfig
    keys: tuple[str, ...]  # what is swept
    config: Mapping[str, Any]  # the configuration without what is swept
    search: Search | None  # hydra/sweeper=optuna
    launcher: str  # its class

    @classmethod
    def read(cls, conf: Path, overrides: Sequence[str]) -> Command:
        """The command as it is typed, with what `sweep.seeds` and a search add to it.

        Raises:
            ConfigError: an override is wrong, contradicts another one, or would be ignored.
        """
        return _expand(_parse(conf, overrides))

    @property
    def identifying_overrides(self) -> list[str]:
        """Those that say what is tried."""
        return _identifying(self.overrides, SEARCHED if self.search else ())

    @property
    def by_processes(self) -> bool:
        """Whether our launcher runs the jobs."""
        return self.launcher == PROCESS

    @property
    def by_slurm(self) -> bool:
        return self.launcher.endswith(".SlurmLauncher")


def _parse(conf: Path, overrides: Sequence[str]) -> Command:
    """What stands on the command line and in conf/, before anything is added."""
    if managed := [override for override in overrides if f"{override.lstrip('+').split('=')[0]}.".startswith(MANAGED)]:
        raise ConfigError(f"{managed[0]}: is set by a sweep for its jobs, never by hand")
    overrides = [RESUME.sub(r"sweep.resume='\1'", override) for override in overrides]
    fixed, keys = swept_keys(overrides)
    config = parse(compose_yaml(conf, fixed))
    cfg, tracking = validate(SweepConfig, config["sweep"]), validate(TrackingConfig, config["tracking"])
    launcher, search = _composed_plugins(conf, overrides, fixed, config)
    if cfg.seeds and any(override.startswith("seed=") for override in overrides):
        raise ConfigError(f"sweep.seeds={cfg.seeds} and seed=… say different things: give one of them")
    return Command(tuple(overrides), cfg, tracking, tuple(keys), config, search, launcher)


def _expand(command: Command) -> Command:
    """The command with the keys of a search, which gives each trial its seeds itself, or with sweep.seeds' seeds."""
    cfg, search = command.cfg, command.search
    if cfg.resume and not _identifying(command.overrides):  # what is searched stands in the sweep that is to go on
        search = None
    if search:
        seed = ["seed"] if search.jobs_per_trial > 1 else []
        return replace(command, keys=(*search.space.keys, *seed))
    command = replace(command, search=None)
    if not cfg.seeds:
        return command
    if cfg.seeds == 1:
        return replace(command, overrides=(*command.overrides, "seed=0"))
    seeds = f"seed={','.join(map(str, range(cfg.seeds)))}"
    return replace(command, overrides=(*command.overrides, seeds), keys=(*command.keys, "seed"))


def _identifying(overrides: Sequence[str], although: tuple[str, ...] = ()) -> list[str]:
    bare = [(override, override.lstrip("+")) for override in overrides]
    return [override for override, key in bare if key.startswith(although) or not key.startswith(UNIDENTIFYING)]


def sweep_id(command: Command, project: Path) -> str:
    """A digest of what the sweep's results are a function of. Its letter keeps Hydra from reading it as a number.

    Raises:
        DataContractError: there is no data yet, or it is not what preprocess wrote.
    """
    DataCard.read(project / DATA_CARD)  # which says so if nothing was preprocessed yet
    base = {key: value for key, value in command.config.items() if key not in ("sweep", "tracking")}
    origin = [sorted(command.identifying_overrides), base, sha256_of(project / DATA_CARD), code_sha256(project)]
    if command.search:  # part of which may stand in conf/
        origin.append(command.search.identity)
    return f"s{sha256_of_json({'origin': origin})[:11]}"


# ---------------------------------------------------------------- which plug-ins, without Optuna


def _composed_plugins(
    conf: Path, overrides: Sequence[str], fixed: Sequence[str], config: Mapping[str, Any]
) -> tuple[str, Search | None]:
    """The launcher's class, and the search that a multirun is; None if it is a grid.

    They may be named on the command line or in conf/.

    Args:
        overrides: of the whole command line, Hydra's own included.
        fixed: those of them that are no sweeps and not Hydra's.
        config: what they compose to.

    Raises:
        ConfigError: a setting that a grid would ignore.
    """
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    hydras = [override for override in overrides if override.lstrip("+").startswith(("hydra.", "hydra/"))]
    with initialized(conf):
        hydra = composed([*fixed, *hydras]).hydra
        sweeper, launcher = hydra.sweeper, str(hydra.launcher._target_)
        if sweeper._target_ != OPTUNA:
            _require_grid(sweeper, launcher, config["sweep"]["fail_fast"])
            return launcher, None
        from pipeline.sweeps.search.options import Search

        raw: Any = OmegaConf.to_container(sweeper, resolve=False)
        refuse_password(raw["storage"])  # but a ${oc.env:…} may stand for one
        options: Any = OmegaConf.to_container(sweeper, resolve=True)
        storage_for_jobs(options["storage"] or "")  # before the process that starts the jobs is forked
        return launcher, Search.read(options, overrides, config, GlobalHydra.instance().config_loader())


def _require_grid(sweeper: Mapping[str, Any], launcher: str, fail_fast: bool) -> None:
    for key in ("params", "max_batch_size"):
        if sweeper.get(key):
            raise ConfigError(
                f"hydra.sweeper.{key} is for hydra/sweeper=optuna; a grid is what stands on the command line: "
                "model.units=64,128"
            )
    if fail_fast and launcher != PROCESS:
        raise ConfigError("sweep.fail_fast=true needs hydra/launcher=process: others start all jobs at once")


def sweep(root: Path, overrides: Sequence[str], work: Callable[[], object]) -> AbstractContextManager[list[str]]:
    """What `-m` runs in: gives the overrides for Hydra.

    Args:
        work: imports what a training needs, before the process is made from which jobs are forked.

    Raises:
        ConfigError: the overrides contradict each other, or name a sweep that is not there.
        PipelineError: some jobs failed; the others are done, and the summary is written.
    """
    command = Command.read(root / "conf", overrides)
    require_choices(root / "conf", command.overrides)
    if command.cfg.dry_run:
        load("train", "MLflow")
    else:
        work()
    from pipeline.sweeps.sweep import dry_run, tracked_run

    return (dry_run if command.cfg.dry_run else tracked_run)(root, overrides, command)
