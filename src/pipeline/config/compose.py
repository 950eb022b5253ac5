"""conf/ composed by Hydra, exactly as DVC composes it in `dvc exp run`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.allowed_targets import GRID, OPTUNA, PROCESS, refuse_foreign_classes
from pipeline.config.check import did_you_mean
from pipeline.system.errors import ConfigError

CONFIG_NAME = "config"
MAX_SHOWN_CHARS = 200  # of overrides in a message


def compose_yaml(conf: Path, overrides: Sequence[str] = ()) -> str:
    """The resolved configuration as YAML, byte for byte what DVC writes to params.yaml for the same overrides."""
    from omegaconf import OmegaConf, open_dict

    with refusals(" ".join(overrides) or str(conf)), initialized(conf):
        config = composed(overrides)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
        return OmegaConf.to_yaml(config)


@contextmanager
def initialized(conf: Path) -> Iterator[None]:
    """Inside, Hydra composes conf/, knows our launcher and sweepers, and names the key that was probably meant."""
    from hydra import initialize_config_dir

    with (
        _restored(),
        registered_options(),
        suggested_keys(),
        initialize_config_dir(str(conf.resolve()), version_base="1.3"),
    ):
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """A Hydra application whose task calls this project goes on as before: initialized, its version base, its name."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    running, base, name = GlobalHydra.instance().hydra, VersionBase.instance().version_base, JobRuntime().get("name")
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        VersionBase.instance().version_base = base
        JobRuntime().set("name", name)


def composed(overrides: Sequence[str]) -> Any:
    """The configuration with Hydra's own settings, inside `initialized`.

    Raises:
        ConfigError: Hydra's settings name a class or function that is none of its plug-ins.
    """
    from hydra import compose

    config = compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
    refuse_foreign_classes(config.hydra)
    return config


@contextmanager
def suggested_keys() -> Iterator[None]:
    """Hydra's error about a key that is not there, with the nearest that is."""
    from hydra.errors import ConfigCompositionException

    try:
        yield
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '(.+)'", str(error))
        if not unknown:
            raise
        key = unknown.group(1)
        raise ConfigCompositionException(f"{key}: there is no such key.{did_you_mean(key)}") from None


def require_choices(conf: Path, overrides: Sequence[str]) -> None:
    """Raise Hydra's own error for a choice of a group that is not there, among those that a sweep would try."""
    for override in overrides:
        group, _, choices = override.lstrip("+").partition("=")
        for choice in choices.split(",") if (conf / group).is_dir() else ():
            if re.fullmatch(r"[\w/-]+", choice) and not (conf / group / f"{choice}.yaml").exists():
                compose_yaml(conf, [f"{group}={choice}"])


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """What Hydra, OmegaConf and YAML let through from Python about settings, as our error.

    what: the overrides, or the file, for the message.
    """
    from yaml import YAMLError

    try:
        yield
    except RecursionError:
        raise ConfigError(
            f"{_short(what)}: nested too deeply: expected a value, or a list or mapping of some"
        ) from None
    except (ValueError, TypeError, YAMLError) as error:
        raise ConfigError(f"{_short(what)}: cannot be read as settings (KEY=VALUE, GROUP=NAME): {error}") from error


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def parse(text: str) -> dict[str, Any]:
    """The values of a composed configuration. By OmegaConf's rules, where 1e-3 is a number; plain YAML says text."""
    from omegaconf import OmegaConf

    with refusals("a composed configuration"):
        values = OmegaConf.to_container(OmegaConf.create(text))
    if not isinstance(values, dict):
        raise ConfigError(f"expected a mapping of keys to values, found {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


# ---------------------------------------------------------------- the options of our launcher and sweepers


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
    from omegaconf import OmegaConf

    options = OmegaConf.structured(OptunaSweeperConf)
    for open_ended in (options.sampler_options, options.pruner_options, options.params):
        OmegaConf.set_struct(open_ended, False)  # hydra.sweeper.sampler_options.multivariate=true needs no + in front
    return options


@contextmanager
def registered_options() -> Iterator[None]:
    """hydra/launcher=process, hydra/sweeper=basic and hydra/sweeper=optuna are ours inside; afterwards as before.

    So other Hydra applications have Hydra's own and those of published plug-ins (docs/decisions/0017).
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

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
