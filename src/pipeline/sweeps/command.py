"""A sweep's command line: what it sweeps, and what makes it this sweep and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.check import validate
from pipeline.config.compose import compose_yaml, parse
from pipeline.config.schema import SweepConfig, TrackingConfig
from pipeline.config.words import swept_keys
from pipeline.data.card import DataCard
from pipeline.errors import ConfigError
from pipeline.files import sha256_of, sha256_of_json
from pipeline.origin import DATA_CARD, code_sha256
from pipeline.sweeps.sweeper import PROCESS, composed_plugins

if TYPE_CHECKING:
    from pipeline.sweeps.search import Search

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
