"""conf/ composed by Hydra, exactly as DVC composes it in `dvc exp run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

CONFIG_NAME = "config"


def compose_yaml(conf: Path, overrides: Sequence[str] = ()) -> str:
    """The resolved configuration as YAML, byte for byte what DVC writes to params.yaml for the same overrides."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        config = compose(CONFIG_NAME, overrides=list(overrides))
    OmegaConf.resolve(config)
    return OmegaConf.to_yaml(config)


def parse(text: str) -> dict[str, Any]:
    """The values of a composed configuration. By OmegaConf's rules, where 1e-3 is a number; plain YAML says text."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.create(text))
    if not isinstance(values, dict):
        raise ConfigError(f"expected a mapping of keys to values, found {type(values).__name__}")
    return {str(key): value for key, value in values.items()}
