"""conf/ composed by Hydra, exactly as DVC composes it in `dvc exp run`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.allowed_targets import refuse_foreign_classes
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

    from pipeline.config.plugins import registered_options

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
