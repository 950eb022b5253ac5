"""A sweep's command line: what it sweeps, and what makes it this sweep and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.allowed_targets import OPTUNA, PROCESS
from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, composed, initialized, parse, require_choices
from pipeline.config.overrides import swept_keys
from pipeline.config.schema import SweepConfig, TrackingConfig
from pipeline.data.card import DataCard
from pipeline.runtime.origin import DATA_CARD, code_sha256
from pipeline.sweeps.search.storage import handed_on, place_of, refuse_a_password, shown_place
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
RESUME = re.compile(r"^sweep\.resume=([0-9a-z]+)$")  # an id may look like a number: 4e16
MANAGED = tuple(f"sweep.{key}." for key in ("parent", "varied", "job", "study", "storage", "trial"))


@dataclass(frozen=True)
class Command:
    """A sweep's command line, and what it says about the sweep itself."""

    words: tuple[str, ...]  # overrides, without -m
    cfg: SweepConfig
    tracking: TrackingConfig
    keys: tuple[str, ...]  # what is swept
    base: Mapping[str, Any]  # the configuration without what is swept
    search: Search | None  # hydra/sweeper=optuna
    launcher: str  # its class

    @classmethod
    def read(cls, conf: Path, words: Sequence[str]) -> Command:
        if managed := [word for word in words if f"{word.lstrip('+').split('=')[0]}.".startswith(MANAGED)]:
            raise ConfigError(f"{managed[0]}: is set by a sweep for its jobs, never by hand")
        words = [RESUME.sub(r"sweep.resume='\1'", word) for word in words]
        fixed, keys = swept_keys(words)
        base = parse(compose_yaml(conf, fixed))
        cfg = validate(SweepConfig, base["sweep"])
        launcher, search = composed_plugins(conf, words, fixed, base)
        if cfg.resume and not _identifying(words):  # what is searched stands in the sweep that is to go on
            search = None
        if search:
            keys = [*search.space.keys, *(["seed"] if search.jobs_per_trial > 1 else [])]
        if cfg.seeds and any(word.startswith("seed=") for word in words):
            raise ConfigError(f"sweep.seeds={cfg.seeds} and seed=… say different things: give one of them")
        if cfg.seeds and not search:  # which gives each trial its seeds itself
            seeds = f"seed={','.join(map(str, range(cfg.seeds)))}" if cfg.seeds > 1 else "seed=0"
            words, keys = [*words, seeds], [*keys, *(["seed"] if cfg.seeds > 1 else [])]
        return cls(tuple(words), cfg, validate(TrackingConfig, base["tracking"]), tuple(keys), base, search, launcher)

    @property
    def own_words(self) -> list[str]:
        """Those that say what is tried."""
        return _identifying(self.words, SEARCHED if self.search else ())

    @property
    def by_processes(self) -> bool:
        """Whether our launcher runs the jobs."""
        return self.launcher == PROCESS

    @property
    def by_slurm(self) -> bool:
        return self.launcher.endswith(".SlurmLauncher")


def _identifying(words: Sequence[str], although: tuple[str, ...] = ()) -> list[str]:
    bare = [(word, word.lstrip("+")) for word in words]
    return [word for word, own in bare if own.startswith(although) or not own.startswith(UNIDENTIFYING)]


def sweep_id(command: Command, project: Path) -> str:
    """A digest of what the sweep's results are a function of. Its letter keeps Hydra from reading it as a number.

    Raises:
        DataContractError: there is no data yet, or it is not what preprocess wrote.
    """
    DataCard.read(project / DATA_CARD)  # or the word that nothing was preprocessed yet
    base = {key: value for key, value in command.base.items() if key not in ("sweep", "tracking")}
    origin = [sorted(command.own_words), base, sha256_of(project / DATA_CARD), code_sha256(project)]
    if command.search:  # part of which may stand in conf/
        origin.append(command.search.identity)
    return f"s{sha256_of_json({'origin': origin})[:11]}"


# ---------------------------------------------------------------- which sweeper it asks for, without Optuna


STUDY_TAG, STORAGE_TAG = "sweep.study", "sweep.storage"  # of the sweep's run


def composed_plugins(
    conf: Path, words: Sequence[str], fixed: Sequence[str], base: Mapping[str, Any]
) -> tuple[str, Search | None]:
    """The launcher's class, and the search that a multirun asks for; None if it asks for a grid.

    They may be named on the command line or in conf/.

    Args:
        words: of the whole command line, Hydra's own included.
        fixed: those of them that are no sweeps and not Hydra's.
        base: what they compose to.

    Raises:
        ConfigError: a setting that a grid would ignore.
    """
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    hydras = [word for word in words if word.lstrip("+").startswith(("hydra.", "hydra/"))]
    with initialized(conf):
        hydra = composed([*fixed, *hydras]).hydra
        sweeper, launcher = hydra.sweeper, str(hydra.launcher._target_)
        if sweeper._target_ != OPTUNA:
            for key in ("params", "max_batch_size"):
                if sweeper.get(key):
                    raise ConfigError(
                        f"hydra.sweeper.{key} is for hydra/sweeper=optuna; a grid is what stands on the command line: "
                        "model.units=64,128"
                    )
            if base["sweep"]["fail_fast"] and launcher != PROCESS:
                raise ConfigError("sweep.fail_fast=true needs hydra/launcher=process: others start all jobs at once")
            return launcher, None
        from pipeline.sweeps.search.options import Search

        raw: Any = OmegaConf.to_container(sweeper, resolve=False)
        refuse_a_password(raw["storage"])  # but a ${oc.env:…} may stand for one
        options: Any = OmegaConf.to_container(sweeper, resolve=True)
        handed_on(options["storage"] or "")  # before the process that starts the jobs is forked
        return launcher, Search.read(options, words, base, GlobalHydra.instance().config_loader())


@dataclass(frozen=True)
class Study:
    """Where a search keeps what it knows."""

    name: str
    place: str  # a URL or the path of a journal

    @classmethod
    def of(cls, given: str | None, before: Mapping[str, str], name: str, folder: Path, root: Path) -> Study:
        """The study of a sweep.

        Args:
            given: hydra.sweeper.storage.
            before: tags of the sweep's run, where it goes on.
            name: for a new study.

        Raises:
            ConfigError: the sweep began with another storage.
        """
        place = place_of(given, folder, root)
        here = shown_place(place)
        if (known := before.get(STORAGE_TAG, here)) != here:
            raise ConfigError(
                f"the study of this sweep is in {known}, not in {here}: give hydra.sweeper.storage, or the environment "
                "variable OPTUNA_STORAGE, as before; or start another sweep: sweep.again=true"
            )
        return cls(before.get(STUDY_TAG, name), place)

    @property
    def tags(self) -> dict[str, str]:
        return {STUDY_TAG: self.name, STORAGE_TAG: shown_place(self.place)}

    def words(self) -> list[str]:
        """The overrides that tell the sweeper, and each job."""
        return [f"sweep.study='{self.name}'", f"sweep.storage='{handed_on(self.place)}'"]


def sweep(root: Path, overrides: Sequence[str], work: Callable[[], object]) -> AbstractContextManager[list[str]]:
    """What `-m` runs in: gives the overrides for Hydra.

    work: imports what a training needs, before the process is made from which jobs are forked.
    """
    command = Command.read(root / "conf", overrides)
    require_choices(root / "conf", command.words)
    if command.cfg.dry_run:
        load("train", "MLflow")
    else:
        work()
    from pipeline.sweeps.sweep import tracked_sweep

    return tracked_sweep(root, overrides, command)
